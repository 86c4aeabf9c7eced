//! The metrics of a protected VM, on both hosts.

use crate::{
    get,
    text::{valid, value},
};
use std::{os::unix::net::UnixStream, time::Instant};
use vmm_lite_lab::{
    images::image,
    probe::Connection,
    process::{Process, run},
    site::Site,
    vmm::{TIMEOUT, Vmm},
};

const PORT: u16 = 7100;
const GUEST: ([u8; 4], u16) = ([10, 0, 0, 2], 6379);
/// Hosts of tests are busy.
const HEARTBEATS: [&str; 4] = ["--heartbeat", "5ms", "--misses", "40"];

/// What a scraper reads of the VM on that host.
fn metrics(vmm: &Vmm) -> String {
    let text = run(&mut vmm.command(&["stats", "kv", "--prometheus"]).unwrap()).unwrap();
    valid(&text);
    text
}

fn role(text: &str) -> &str {
    let of = |line: &str| line.starts_with("vmm_lite_replication_role{") && line.ends_with(" 1");
    let mut present = text.lines().filter(|line| of(line));
    let line = present.next().unwrap();
    assert_eq!(present.next(), None, "one role at a time");
    line.split_once("role=\"").unwrap().1.split('"').next().unwrap()
}

fn of_kv(text: &str, name: &str) -> f64 {
    value(text, &format!("vmm_lite_replication_{name}{{vm=\"kv\"}}"))
}

/// Waits until the metrics of the host are like that.
fn until(vmm: &Vmm, what: &str, so: impl Fn(&str) -> bool) -> String {
    let end = Instant::now() + TIMEOUT;
    loop {
        let text = metrics(vmm);
        if so(&text) {
            return text;
        }
        assert!(Instant::now() < end, "not {what}: {text}");
    }
}

#[test]
fn both_hosts_show_their_part_in_a_protection() {
    let Some(site) = Site::for_test("metrics of a protected VM") else { return };
    let [a, b] = Vmm::on_both(&site).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let arbiter = format!("file:{}", dir.path().display());
    let socket = dir.path().join("standby.metrics");
    let at = format!("unix:{}", socket.display());
    let scrape = || get(UnixStream::connect(&socket).unwrap(), "/metrics").1;
    let args = ["--name", "kv", "--memory", "16M", "--tap", "tap0", "--ip", "10.0.0.2/24"];
    let first = a.run(&image("kv").unwrap(), &args).unwrap();
    let url = b.url(PORT);
    let args = ["standby", "--listen", &url, "--tap", "tap0", "--arbiter", &arbiter];
    let second = b.command(&[&args[..], &["--metrics", &at]].concat()).unwrap();
    let second = Process::start(second).unwrap();
    second.wait_for_line("listening", TIMEOUT).unwrap();
    assert_eq!(value(&scrape(), "vmm_lite_present"), 0.0);
    drop(Connection::open_when_up(&site.client, GUEST.into(), TIMEOUT).unwrap());
    let alone = metrics(&a);
    assert_eq!((role(&alone), of_kv(&alone, "standbys_in_sync")), ("none", 0.0));
    assert!(!alone.contains("replication_term"), "no set, no figures of one: {alone}");

    let args = ["protect", "kv", &url, "--arbiter", &arbiter, "--json"];
    let protected = a.json(&[&args[..], &HEARTBEATS].concat()).unwrap();
    let primary = metrics(&a);
    assert_eq!((role(&primary), of_kv(&primary, "standbys_in_sync")), ("primary", 1.0));
    assert_eq!(of_kv(&primary, "term"), protected["term"].as_f64().unwrap());
    assert_eq!(of_kv(&primary, "arbiter_up"), 1.0);
    assert!(of_kv(&primary, "log_bytes_total") > 0.0);
    assert!(of_kv(&primary, "released_record") <= of_kv(&primary, "last_record"));
    assert!(!primary.contains("primary_silent"), "it is the primary");
    let standby = format!("{{vm=\"kv\",standby={}}}", protected["member"]);
    let of_standby = |text: &str, name: &str| {
        value(text, &format!("vmm_lite_replication_standby_{name}{standby}"))
    };
    assert_eq!(of_standby(&primary, "in_sync"), 1.0);
    for name in ["unreceived_records", "unexecuted_records", "lag_bytes", "lag_seconds"] {
        of_standby(&primary, name);
    }
    assert!(of_standby(&primary, "silent_seconds") < TIMEOUT.as_secs_f64());
    assert!(of_standby(&primary, "round_trip_seconds") < TIMEOUT.as_secs_f64());

    let there = scrape();
    valid(&there);
    assert_eq!((role(&there), of_kv(&there, "standbys_in_sync")), ("standby", 1.0));
    assert_eq!(of_kv(&there, "takeovers_total"), 0.0);
    assert!(of_kv(&there, "primary_silent_seconds") < TIMEOUT.as_secs_f64());
    assert!(of_kv(&there, "executed_record") <= of_kv(&there, "last_record"));
    assert!(!there.contains("replication_standby_"), "a standby has none itself: {there}");

    a.json(&["failover", "kv", "--json"]).unwrap();
    let primary = metrics(&b);
    assert_eq!((role(&primary), of_kv(&primary, "takeovers_total")), ("primary", 1.0));
    assert_eq!(of_kv(&primary, "divergences_total"), 0.0);
    assert_eq!(role(&metrics(&a)), "standby");
    drop(first);
    let alone = until(&b, "alone", |text| of_kv(text, "standbys_in_sync") == 0.0);
    assert_eq!(role(&alone), "primary");
    assert!(of_kv(&alone, "term") > protected["term"].as_f64().unwrap());
    b.json(&["stop", "kv", "--json"]).unwrap();
}
