//! What a move reports, and a VM's history of moves.

use crate::text::{valid, value};
use serde_json::Value;
use std::{process::Stdio, time::Instant};
use vmm::kvm::Host;
use vmm_lite_lab::{
    images::image,
    process::Process,
    site::Site,
    vmm::{TIMEOUT, Vmm},
};

/// Two hosts and dirtier on the first.
fn moving(test: &str) -> Option<(Site, [Vmm; 2], Process)> {
    let site = Site::for_test(test)?;
    let vmms = Vmm::on_both(&site).unwrap();
    let args = ["--name", "d", "--memory", "16M", "--", "--pages", "64"];
    let vm = vmms[0].run(&image("dirtier").unwrap(), &args).unwrap();
    vm.wait_for_line("nonce", TIMEOUT).unwrap();
    Some((site, vmms, vm))
}

#[test]
fn the_history_of_a_vm_moves_with_it() {
    let Some((_site, [here, there], vm)) = moving("history of moves") else { return };
    here.migrate("d", &there.url(7999)).unwrap_err();
    let mut vm = vm;
    let mut reported = 0;
    for (from, to) in [(&here, &there), (&there, &here)] {
        let next = to.receive(7000, &[]).unwrap();
        reported += from.migrate("d", &to.url(7000)).unwrap()["blackout_ns"].as_u64().unwrap();
        // Its name is free on that host again.
        vm.wait(TIMEOUT).unwrap();
        vm = next;
    }
    let history = here.json(&["stats", "d", "--json"]).unwrap()["history"].clone();
    let n = |v: &Value| v.as_u64().unwrap();
    assert_eq!((n(&history["moves_arrived"]), n(&history["moves_failed"])), (2, 1), "{history}");
    let counts = history["blackout"]["counts"].as_array().unwrap();
    assert_eq!(counts.iter().map(n).sum::<u64>(), 2);
    // Both err upwards, each by one message latency; the destinations' also by one peek at the
    // dirty log.
    let seen = n(&history["blackout"]["sum_ns"]);
    assert!(seen > reported / 2 && seen < reported + 100_000_000, "{seen} and {reported} ns");
    let settled = history["brownout"]["counts"].as_array().unwrap();
    let told = if Host::open().unwrap().fault_cost().is_ok() { 2 } else { 0 };
    assert_eq!(settled.iter().map(n).sum::<u64>(), told, "{history}");
    let quiesced = history["quiesce"]["counts"].as_array().unwrap();
    assert_eq!(quiesced.iter().map(n).sum::<u64>(), 2, "{history}");
    let mut command = here.command(&["stats", "d", "--prometheus"]).unwrap();
    let text = String::from_utf8(command.output().unwrap().stdout).unwrap();
    valid(&text);
    assert_eq!(value(&text, "vmm_lite_moves_total{vm=\"d\",outcome=\"arrived\"}"), 2.0);
    assert_eq!(value(&text, "vmm_lite_move_blackout_seconds_bucket{vm=\"d\",le=\"+Inf\"}"), 2.0);
    let count = value(&text, "vmm_lite_move_brownout_seconds_count{vm=\"d\"}");
    assert_eq!(count, told as f64);
    here.json(&["stop", "d", "--json"]).unwrap();
}

#[test]
fn the_dirty_rate_is_measured_beside_a_move() {
    let Some((_site, [here, there], vm)) = moving("dirty rate") else { return };
    let measured = |ms: &str| {
        let began = Instant::now();
        let stats = here.json(&["stats", "d", "--json", "--dirty-rate", ms]).unwrap();
        let rate = stats["dirty_rate"]["pages_per_second"].as_f64().unwrap();
        // It writes its 64 pages all the time, and some of the kernel's, and each counts once: in
        // the time asked for, or as much longer as this host took.
        let (least, took) = (ms.parse::<f64>().unwrap() / 1e3, began.elapsed());
        let (at_most, at_least) = (rate * least, (rate + 1.0) * took.as_secs_f64());
        assert!(at_least >= 64.0 && at_most <= 192.0, "{rate} pages a second in {took:?}");
        stats
    };
    assert_eq!(measured("500")["dirty_log_users"], 0);
    // During a move that takes long.
    let slow = there.receive(7001, &[]).unwrap();
    let url = there.url(7001);
    let args = ["migrate", "d", &url, "--json", "--bandwidth", "1MB"];
    let moving = Process::start(here.command(&args).unwrap()).unwrap();
    moving.wait_for_line("copying memory", TIMEOUT).unwrap();
    let stats = measured("100");
    assert_eq!((&stats["operation"], &stats["dirty_log_users"]), (&"move".into(), &1.into()));
    here.json(&["cancel", "d", "--json"]).unwrap();
    drop((moving, slow));
    // One that outlasts a move does not hold it up.
    let mut look = here.command(&["stats", "d", "--json", "--dirty-rate", "10000"]).unwrap();
    let looking = Process::start({
        look.stdin(Stdio::null());
        look
    })
    .unwrap();
    let next = there.receive(7000, &[]).unwrap();
    here.migrate("d", &there.url(7000)).unwrap();
    drop((looking, vm));
    let line = next.wait_for_line("passes=", TIMEOUT).unwrap();
    assert!(line.contains("errors=0"), "memory is whole: {line}");
    there.json(&["stop", "d", "--json"]).unwrap();
}

#[test]
fn a_move_reports_its_progress() {
    let Some((_site, [here, there], vm)) = moving("events of a move") else { return };
    let migrate = |url: &str| {
        let out = here.command(&["migrate", "d", url, "--json"]).unwrap().output().unwrap();
        let text = String::from_utf8(out.stdout).unwrap();
        let lines = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect::<Vec<Value>>();
        (out.status.code(), lines)
    };
    let (code, lines) = migrate(&there.url(7999));
    assert_eq!((code, lines.len()), (Some(1), 2), "{lines:?}");
    assert_eq!(lines[0]["doing"], "connecting");
    assert_eq!(lines[1]["event"], "failed");
    assert!(lines[1]["error"].as_str().unwrap().contains("cannot reach"), "{lines:?}");
    let small = there.receive(7001, &["--memory-max", "8M"]).unwrap();
    let (code, lines) = migrate(&there.url(7001));
    assert_eq!(code, Some(1));
    assert_eq!(lines.first().unwrap()["event"], "phase", "{lines:?}");
    assert_eq!(lines.last().unwrap()["event"], "failed", "{lines:?}");
    drop(small);
    let next = there.receive(7000, &[]).unwrap();
    let (code, lines) = migrate(&there.url(7000));
    assert_eq!(code, Some(0));
    let (report, events) = lines.split_last().unwrap();
    assert!(report["blackout_ns"].as_u64().unwrap() > 0 && report["event"].is_null(), "{report}");
    let of = |kind: &'static str| events.iter().filter(move |e| e["event"] == kind);
    let rounds: Vec<_> = of("round").map(|e| e["round"].as_u64().unwrap()).collect();
    let expected: Vec<_> = (1..=report["rounds"].as_u64().unwrap()).collect();
    assert_eq!(rounds, expected, "{events:?}");
    let pages: u64 = of("round").map(|e| e["pages"].as_u64().unwrap()).sum();
    // Some may have been post-copied after the switch.
    let last = report["last_pages"].as_u64().unwrap();
    assert!(pages > 0 && pages + last <= report["pages_sent"].as_u64().unwrap(), "{report}");
    assert!(of("round").all(|e| e["predicted_blackout_ns"].as_u64().unwrap() > 0), "{events:?}");
    let doing: Vec<_> = of("phase").map(|e| e["doing"].as_str().unwrap()).collect();
    for phase in ["offering the VM", "copying memory", "stopping the guest", "done"] {
        assert!(doing.contains(&phase), "{phase} in {doing:?}");
    }
    let times: Vec<_> = events.iter().map(|e| e["at_ns"].as_u64().unwrap()).collect();
    assert!(times.is_sorted(), "{times:?}");
    there.json(&["stop", "d", "--json"]).unwrap();
    drop((vm, next));
}
