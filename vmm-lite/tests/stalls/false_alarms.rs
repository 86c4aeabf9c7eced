//! Long work and long waits that are not hangs.

use super::bed::Bed;
use nix::sys::signal::Signal;
use std::{
    fs, thread,
    time::{Duration, Instant},
};
use testkit::{greeting::greets, guest::Elf};
use vmm_lite_lab::{process::Process, vmm::TIMEOUT};

/// The stall limit: longer than a busy host needs to run a ready thread.
const LIMIT: &str = "2s";
/// Several times that limit.
const LONG: Duration = Duration::from_secs(7);

/// Requests the VM's stats repeatedly for this long, so that the watchdog checks all the time.
fn ask(bed: &Bed, how_long: Duration) {
    let end = Instant::now() + how_long;
    while Instant::now() < end {
        bed.json(&["stats", "d", "--json"]);
        thread::sleep(Duration::from_millis(100));
    }
}

fn nothing_was_said(bed: &Bed, vm: &Process, what: &str) {
    let stats = bed.json(&["stats", "d", "--json"]);
    assert_eq!(stats["stalls"], 0, "{what}: {stats}");
    assert!(!vm.output().contains("has not answered"), "{what}: {}", vm.output());
}

#[test]
fn a_guest_that_computes_without_end_does_not_hang() {
    let Some(bed) = Bed::new("a busy guest") else { return };
    let vm = bed.busy(&["--watchdog", LIMIT], "");
    ask(&bed, LONG);
    // Nor one that is stopped and resumed all the time.
    let end = Instant::now() + LONG;
    while Instant::now() < end {
        bed.json(&["pause", "d", "--json"]);
        bed.text(&["resume", "d"]);
    }
    nothing_was_said(&bed, &vm, "busy");
}

#[test]
fn a_guest_that_waits_without_end_does_not_hang() {
    let Some(bed) = Bed::new("an idle guest") else { return };
    let image = Elf::of(greets()).file();
    let run = ["run", image.path().to_str().unwrap(), "--name", "d", "--memory", "2M"];
    let vm = bed.verb(&[&run[..], &["--watchdog", LIMIT]].concat());
    vm.wait_for_line("hi!", TIMEOUT).unwrap();
    ask(&bed, LONG);
    nothing_was_said(&bed, &vm, "idle");
}

#[test]
fn a_vm_that_is_paused_for_long_does_not_hang() {
    let Some(bed) = Bed::new("a paused VM") else { return };
    let vm = bed.busy(&["--watchdog", LIMIT], "");
    bed.json(&["pause", "d", "--json"]);
    ask(&bed, LONG);
    bed.text(&["resume", "d"]);
    ask(&bed, Duration::from_secs(1));
    nothing_was_said(&bed, &vm, "paused");
}

#[test]
fn a_guest_that_waits_for_memory_does_not_hang_but_a_stuck_loader_does() {
    let Some(bed) = Bed::new("a guest that waits for memory") else { return };
    let vm = bed.restore_lazily("lazy.loading=hold");
    vm.wait_for_line("has not answered", TIMEOUT).unwrap();
    // The VM cannot stop before its page has arrived.
    let mut pause = bed.verb(&["pause", "d"]);
    ask(&bed, LONG);
    let stats = bed.json(&["stats", "d", "--json"]);
    let stalled = stats["stalled"].as_array().unwrap();
    assert!(stalled.iter().all(|one| one["thread"] == "loader"), "{stats}");
    vm.signal(Signal::SIGCONT).unwrap();
    assert!(pause.wait(TIMEOUT).unwrap().success(), "{}", pause.output());
    bed.goes_on();
}

#[test]
fn a_process_that_was_stopped_for_long_does_not_hang() {
    let Some(bed) = Bed::new("a process that is stopped") else { return };
    let vm = bed.busy(&["--watchdog", LIMIT], "");
    // Requests are under way all the time.
    thread::scope(|scope| {
        let clients: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    for _ in 0..100 {
                        bed.json(&["stats", "d", "--json"]);
                    }
                })
            })
            .collect();
        vm.signal(Signal::SIGSTOP).unwrap();
        thread::sleep(Duration::from_secs(10));
        vm.signal(Signal::SIGCONT).unwrap();
        clients.into_iter().for_each(|client| client.join().unwrap());
    });
    ask(&bed, LONG / 2);
    nothing_was_said(&bed, &vm, "stopped");
    bed.goes_on();
}

#[test]
fn a_watchdog_that_is_off_has_no_thread() {
    let Some(bed) = Bed::new("no watchdog") else { return };
    for (limit, there) in [("off", false), ("1min", true)] {
        let mut vm = bed.busy(&["--watchdog", limit], "");
        // It has started all its threads by then.
        bed.json(&["stats", "d", "--json"]);
        let tasks = fs::read_dir(format!("/proc/{}/task", vm.pid())).unwrap();
        let name = |task: fs::DirEntry| fs::read_to_string(task.path().join("comm")).unwrap();
        let names: Vec<_> = tasks.map(|task| name(task.unwrap())).collect();
        assert_eq!(names.iter().any(|name| name == "watchdog\n"), there, "{limit}: {names:?}");
        bed.json(&["stop", "d", "--json"]);
        vm.wait(TIMEOUT).unwrap();
    }
}
