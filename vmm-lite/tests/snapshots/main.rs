//! VMs are saved, restored, reverted and cloned: real images, real clients, and files that are
//! damaged or find no space.

mod clones;
mod files;
mod lab;
mod network;

use files::damage;
use lab::{KV, Lab, clocks_are_right, dirtier_is_whole, info};
use serde_json::Value;
use std::{collections::HashSet, path::Path, time::Duration};
use vmm_lite_lab::{probe::Probe, redis, skipped, vmm::TIMEOUT};

#[test]
fn memory_that_is_being_written_is_saved_intact() {
    let Some(lab) = Lab::new("snapshots of dirtier", "dirtier") else { return };
    let vm = lab.dirtier();
    let file = lab.file("d.snap");
    for _ in 0..5 {
        let report = lab.snapshot("d", &file);
        let phases: u64 =
            report["phases"].as_object().unwrap().values().map(|v| v.as_u64().unwrap()).sum();
        assert_eq!(report["pause_ns"].as_u64().unwrap(), phases, "{report}");
        assert!(report["pages_saved"].as_u64().unwrap() > 1024, "{report}");
        assert_eq!(lab.files(), 1, "one name, one file");
    }
    dirtier_is_whole(&vm);
    lab.stop("d", vm);
    let inspected = lab.json(&["inspect", &file, "--json"]);
    assert_eq!((inspected["name"].as_str(), inspected["base"].as_str()), (Some("d"), None));
    assert_eq!(inspected["own_clock"]["count"].as_u64(), Some(0), "{inspected}");
    // The same file, repeatedly, in both ways.
    for how in [&[][..], &["--lazy"], &[]] {
        let vm = lab.start(&[&["restore", &file], how].concat());
        dirtier_is_whole(&vm);
        lab.stop("d", vm);
    }
}

#[test]
fn a_store_saved_under_load_is_restored_the_same_each_time() {
    const TEST: &str = "snapshots of kv under load";
    let Some(lab) = Lab::new(TEST, "kv") else { return };
    let vm = lab.kv();
    let mut connection = lab.client(KV);
    assert_eq!(connection.request("SET kept 8f1c29\r\n").unwrap(), "+OK");
    let address = KV.parse().unwrap();
    let client = &lab.site.client;
    let load = ["-t", "set,get", "-c", "8", "-r", "100"];
    let mut load = match redis::background_load(client, address, &load) {
        Ok(load) => load,
        Err(e) => return skipped(TEST, e),
    };
    let probe = Probe::start(client, address, "counter", Duration::ZERO).unwrap();
    let file = lab.file("kv.snap");
    for _ in 0..10 {
        lab.snapshot("kv", &file);
    }
    assert!(load.is_running(), "redis-benchmark ended: {}", load.output());
    drop(load);
    let seen = probe.stop();
    assert!(seen.errors.is_empty(), "{:?}", &seen.errors[..seen.errors.len().min(5)]);
    assert_eq!((seen.reconnects, seen.counter as usize), (0, seen.samples.len()));
    let nonce = info(&mut connection, "nonce");
    let up = clocks_are_right(&mut connection, Duration::ZERO);
    lab.json(&["snapshot", "kv", &file, "--stop", "--json"]);
    let mut vm = vm;
    vm.wait(TIMEOUT).unwrap();

    let counter = seen.counter.to_string();
    let mut drawn = HashSet::new();
    let mut up = up;
    for how in [&[][..], &["--lazy"], &[]] {
        let vm =
            lab.start(&[&["restore", &file, "--tap", "tap0", "--clock", "jump"][..], how].concat());
        let mut connection = lab.client(KV);
        assert_eq!(connection.bulk("GET kept\r\n").unwrap().as_deref(), Some("8f1c29"));
        assert_eq!(connection.bulk("GET counter\r\n").unwrap().as_ref(), Some(&counter));
        assert_eq!(connection.request("SET counter 5\r\n").unwrap(), "+OK", "forgotten next time");
        assert_eq!(info(&mut connection, "nonce"), nonce);
        assert_eq!(info(&mut connection, "copies"), "1");
        assert!(drawn.insert(info(&mut connection, "drawn")), "random numbers differ");
        assert_eq!(info(&mut connection, "last_resume"), "restored");
        // The monotonic clock continues while the store does not exist.
        up = clocks_are_right(&mut connection, up);
        lab.stop("kv", vm);
    }
}

#[test]
fn a_store_is_reverted() {
    let Some(lab) = Lab::new("reverts of kv", "kv") else { return };
    let vm = lab.kv();
    let mut connection = lab.client(KV);
    assert_eq!(connection.request("SET a before\r\n").unwrap(), "+OK");
    let file = lab.file("kv.snap");
    lab.snapshot("kv", &file);
    let mut drawn = HashSet::new();
    for n in 0..3 {
        let mut connection = lab.client(KV);
        assert_eq!(connection.request("SET a after\r\n").unwrap(), "+OK");
        let up = clocks_are_right(&mut connection, Duration::ZERO);
        let report = lab.json(&["revert", "kv", &file, "--clock", "jump", "--json"]);
        assert!(report["pause_ns"].as_u64().unwrap() > 0, "{report}");
        let mut connection = lab.client(KV);
        clocks_are_right(&mut connection, up);
        assert_eq!(info(&mut connection, "last_resume"), "reverted");
        assert!(drawn.insert(info(&mut connection, "drawn")), "random numbers differ");
        assert_eq!(connection.bulk("GET a\r\n").unwrap().as_deref(), Some("before"), "{n}");
    }
    // A damaged file does not revert it.
    assert_eq!(lab.client(KV).request("SET a after\r\n").unwrap(), "+OK");
    let bad = lab.file("bad.snap");
    damage(&file, &bad, 5000);
    let said = lab.said(&["revert", "kv", &bad]);
    assert!(said.contains("damaged: the checksum of memory page"), "{said}");
    assert_eq!(lab.client(KV).bulk("GET a\r\n").unwrap().as_deref(), Some("after"));
    lab.stop("kv", vm);
}

#[test]
fn a_difference_and_its_base_make_the_whole() {
    let Some(lab) = Lab::new("differences", "kv") else { return };
    let vm = lab.kv();
    let mut connection = lab.client(KV);
    assert_eq!(connection.request("SET a base\r\n").unwrap(), "+OK");
    let (base, diff, whole) = (lab.file("base"), lab.file("diff"), lab.file("whole"));
    let first = lab.snapshot("kv", &base);
    let other = lab.file("other");
    lab.snapshot("kv", &other);
    assert_eq!(connection.request("SET a changed\r\n").unwrap(), "+OK");
    let report = lab.json(&["snapshot", "kv", &diff, "--diff", &base, "--json"]);
    let n = |report: &Value, key: &str| report[key].as_u64().unwrap();
    assert!(n(&report, "pages_saved") < n(&first, "pages_saved") / 2, "{report}");
    assert!(n(&report, "pages_same") > 0, "{report}");
    assert!(lab.said(&["restore", &diff, "--tap", "tap0"]).contains("vmm-lite merge"));
    assert!(lab.said(&["merge", &other, &diff, "-o", &whole]).contains("not the snapshot"));
    assert!(lab.said(&["merge", &diff, &diff, "-o", &whole]).contains("a difference itself"));
    let twice = lab.said(&["snapshot", "kv", &whole, "--diff", &diff]);
    assert!(twice.contains("a difference itself"), "{twice}");
    assert!(!Path::new(&whole).exists());
    lab.json(&["merge", &base, &diff, "-o", &whole, "--json"]);
    lab.stop("kv", vm);
    for (file, value) in [(&whole, "changed"), (&base, "base")] {
        let vm = lab.start(&["restore", file, "--tap", "tap0"]);
        let mut connection = lab.client(KV);
        assert_eq!(connection.bulk("GET a\r\n").unwrap().as_deref(), Some(value));
        lab.stop("kv", vm);
    }
}
