//! Copying a VM, or moving it on, during post-copy or a lazy restore: the verb waits for all
//! memory, or fails and changes nothing. Every result is checked key by key.

mod store;

use nix::sys::signal::Signal;
use store::{Lab, STORE};
use vmm_lite_lab::{process::Process, vmm::TIMEOUT};

const HYBRID: [&str; 2] = ["--mode", "hybrid"];

/// A verb is requested during post-copy, reports that it waits, and succeeds once the link is fast.
#[track_caller]
fn waits_and_succeeds(lab: &Lab, mut verb: Process) {
    let waits = verb.wait_for_line("of memory that still follows from", TIMEOUT);
    waits.unwrap_or_else(|e| panic!("it does not wait: {e}\n{}", verb.output()));
    lab.release();
    let status = verb.wait(TIMEOUT * 3).unwrap();
    assert!(status.success(), "{}", verb.output());
}

#[test]
fn a_snapshot_during_post_copy_has_all_memory() {
    let Some(mut lab) = Lab::new("a snapshot while memory follows") else { return };
    let (mut there, mut migrate) = lab.follow(&HYBRID);
    let least = lab.confirmed();
    let file = lab.file("kv.snap");
    waits_and_succeeds(&lab, lab.start(1, &["snapshot", "kv", &file, "--json"]));
    assert!(migrate.wait(TIMEOUT).unwrap().success(), "{}", migrate.output());
    lab.stop_writing();
    lab.is_whole(STORE, &lab.confirmed());
    lab.vmms[1].json(&["stop", "kv", "--json"]).unwrap();
    there.wait(TIMEOUT).unwrap();
    let restored = lab.start(1, &["restore", &file, "--tap", "tap0"]);
    lab.is_whole(STORE, &least);
    drop(restored);
}

/// A lazy restore lacks pages too, for a while: a copy that is requested meanwhile has all of them.
#[test]
#[cfg(debug_assertions)]
fn a_snapshot_during_a_lazy_restore_has_all_memory() {
    use vmm::fail_point::CHOICE;
    let Some(mut lab) = Lab::new("a snapshot while memory is loaded") else { return };
    lab.stop_writing();
    let (least, [file, again]) = (lab.confirmed(), ["kv.snap", "again.snap"].map(|f| lab.file(f)));
    lab.vmms[0].json(&["snapshot", "kv", &file, "--stop", "--json"]).unwrap();
    let mut command = lab.vmms[1].command(&["restore", &file, "--lazy", "--tap", "tap0"]).unwrap();
    command.env(CHOICE, "lazy.loading=hold");
    let mut lazy = Process::start(command).unwrap();
    lazy.wait_for_line("fail point lazy.loading: Hold", TIMEOUT).unwrap();
    let mut verb = lab.start(1, &["snapshot", "kv", &again, "--json"]);
    let waits = verb.wait_for_line("of memory that still is loaded from", TIMEOUT);
    waits.unwrap_or_else(|e| panic!("it does not wait: {e}\n{}", verb.output()));
    lazy.signal(Signal::SIGCONT).unwrap();
    assert!(verb.wait(TIMEOUT).unwrap().success(), "{}", verb.output());
    lab.is_whole(STORE, &least);
    lab.vmms[1].json(&["stop", "kv", "--json"]).unwrap();
    lazy.wait(TIMEOUT).unwrap();
    let restored = lab.start(1, &["restore", &again, "--tap", "tap0"]);
    lab.is_whole(STORE, &least);
    drop(restored);
}

#[test]
fn a_fork_during_post_copy_has_all_memory() {
    let Some(mut lab) = Lab::new("a fork while memory follows") else { return };
    let (_there, mut migrate) = lab.follow(&HYBRID);
    let least = lab.confirmed();
    let args = ["fork", "kv", "--tap", "tap1", "--ip", "10.0.0.21/24", "--json"];
    let clones = lab.start(1, &args);
    let waits = clones.wait_for_line("of memory that still follows from", TIMEOUT);
    waits.unwrap_or_else(|e| panic!("it does not wait: {e}\n{}", clones.output()));
    lab.release();
    clones.wait_for_line("\"clones\"", TIMEOUT * 3).unwrap();
    assert!(migrate.wait(TIMEOUT).unwrap().success(), "{}", migrate.output());
    lab.stop_writing();
    lab.is_whole("10.0.0.21:6379", &least);
    lab.is_whole(STORE, &lab.confirmed());
}

/// The second move waits for the first one's source, which may end only when all memory has
/// arrived.
#[test]
fn a_move_during_post_copy_takes_all_memory_along() {
    let Some(mut lab) = Lab::new("a move while memory follows") else { return };
    let (mut there, mut migrate) = lab.follow(&HYBRID);
    let args = ["--plaintext", "--tap", "tap1", "--name", "kv2"];
    let home = lab.vmms[0].receive(7001, &args).unwrap();
    let url = lab.vmms[0].url(7001);
    let args = ["migrate", "kv", &url, "--plaintext", "--json"];
    waits_and_succeeds(&lab, lab.start(1, &args));
    assert!(migrate.wait(TIMEOUT).unwrap().success(), "{}", migrate.output());
    assert!(lab.source.wait(TIMEOUT).unwrap().success(), "{}", lab.source.output());
    assert!(there.wait(TIMEOUT).unwrap().success(), "{}", there.output());
    lab.stop_writing();
    lab.is_whole(STORE, &lab.confirmed());
    drop(home);
}

/// In the default mode, as soon as `migrate` has reported that the VM has arrived.
#[test]
fn a_snapshot_right_after_a_move_has_all_memory() {
    let Some(mut lab) = Lab::new("a snapshot right after a move") else { return };
    let (mut there, mut migrate) = lab.follow(&[]);
    lab.release();
    assert!(migrate.wait(TIMEOUT * 3).unwrap().success(), "{}", migrate.output());
    let (least, file) = (lab.confirmed(), lab.file("kv.snap"));
    lab.vmms[1].json(&["snapshot", "kv", &file, "--json"]).unwrap();
    lab.stop_writing();
    lab.vmms[1].json(&["stop", "kv", "--json"]).unwrap();
    there.wait(TIMEOUT).unwrap();
    let restored = lab.start(1, &["restore", &file, "--tap", "tap0"]);
    lab.is_whole(STORE, &least);
    drop(restored);
}

/// A verb fails with this message, and leaves the VM unchanged.
#[track_caller]
fn fails(lab: &Lab, verb: &mut Process, why: &str) {
    let status = verb.wait(TIMEOUT * 2).unwrap();
    assert_eq!(status.code(), Some(1), "{}", verb.output());
    assert!(verb.output().contains(why), "not {why:?}: {}", verb.output());
    let stats = lab.vmms[1].json(&["stats", "kv", "--json"]).unwrap();
    assert_eq!(stats["state"], "running", "{why}");
}

#[test]
fn a_wait_for_post_copy_ends_at_its_timeout_when_cancelled_and_when_the_source_is_lost() {
    let Some(lab) = Lab::new("waits for memory that follows") else { return };
    let before = lab.file("before.snap");
    lab.vmms[0].json(&["snapshot", "kv", &before, "--json"]).unwrap();
    let (_there, _migrate) = lab.follow(&HYBRID);
    let file = lab.file("kv.snap");
    let url = lab.vmms[0].url(7001);
    let snapshot = ["snapshot", "kv", &file];
    let verbs: [&[&str]; 4] = [
        &snapshot,
        &["fork", "kv", "--tap", "tap1", "--ip", "10.0.0.21/24"],
        &["revert", "kv", &before],
        &["migrate", "kv", &url, "--plaintext"],
    ];
    for verb in verbs {
        let mut verb = lab.start(1, &[verb, &["--timeout", "100ms"]].concat());
        fails(&lab, &mut verb, "100ms it may take (--timeout)");
    }
    // Measuring the dirty rate changes nothing.
    lab.vmms[1].json(&["stats", "kv", "--json", "--dirty-rate", "10"]).unwrap();
    let mut waiting = lab.start(1, &snapshot);
    waiting.wait_for_line("of memory that still follows from", TIMEOUT).unwrap();
    lab.vmms[1].json(&["cancel", "kv", "--json"]).unwrap();
    fails(&lab, &mut waiting, "cancelled");
    // The source dies with the pages that have not arrived.
    lab.source.signal(Signal::SIGKILL).unwrap();
    let mut lost = lab.start(1, &snapshot);
    fails(&lab, &mut lost, "that only its source");
    assert!(!std::path::Path::new(&file).exists());
}
