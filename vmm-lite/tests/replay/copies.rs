//! VMs that are recorded after they came from elsewhere: moved, restored, forked, taken over.

use super::recorded::{Base, Recorded, Records, SOME, boot, ends_alike};
use std::time::Duration;
use testkit::guest::kvm;
use vmm::vm::{Resume, ResumeReason};
use vmm_lite_lab::images::image;

/// Runs the checks of the standard library up to some moment, and from there on in a copy that is
/// told `reason` and is recorded.
fn copied(reason: ResumeReason, after: Duration) -> Recorded {
    let args = ["--only", "threads", "--only", "time", "--only", "heap", "--only", "random"];
    let original = boot(&image("std-check").unwrap(), 64 << 20, &args, SOME);
    // Any moment will do, the later ones too, when it has ended.
    std::thread::sleep(after);
    let Ok(mut paused) = original.vm.pause() else { return original };
    let base = Base::of(&mut paused);
    drop(paused);
    let vm = base.machine();
    let mut held = vm.hold().unwrap();
    held.apply(&base.state, Duration::from_millis(1)).unwrap();
    let base = Base::of(&mut held);
    let records = Records::default();
    held.record(Box::new(records.clone()), 0, SOME).unwrap();
    held.resume(Resume { reason, away: Duration::from_millis(1) }).unwrap();
    Recorded { vm, base, records }
}

#[test]
fn a_vm_that_came_from_elsewhere_runs_the_same_again() {
    if !kvm() {
        return;
    }
    use ResumeReason::{Forked, Migrated, Restored, Resumed, TakenOver};
    for (n, reason) in [Migrated, Restored, Forked, TakenOver, Resumed].into_iter().enumerate() {
        let recorded = copied(reason, Duration::from_millis(20 + 70 * n as u64));
        let _ = recorded.vm.wait_end();
        ends_alike(&recorded.vm, &recorded.base.replay(&recorded.records));
    }
}

#[test]
fn a_replay_goes_on_by_itself_where_its_log_ends() {
    if !kvm() {
        return;
    }
    let args = ["--only", "threads", "--only", "time"];
    let recorded = boot(&image("std-check").unwrap(), 64 << 20, &args, SOME);
    let _ = recorded.vm.wait_end();
    let all = recorded.records.len();
    // From records of both kinds.
    for until in [0, 1, 2, all / 3, all / 2, all / 2 + 1, all - 1] {
        let (vm, replayed) = recorded.base.replay_until(&recorded.records, until);
        let replayed = replayed.expect("it has not ended");
        assert_eq!(replayed.position, until as u64);
        // What it does from there on can be recorded in turn.
        let mut held = vm.hold().unwrap();
        held.go_live(Duration::from_secs(1)).unwrap();
        let base = Base::of(&mut held);
        let records = Records::default();
        held.record(Box::new(records.clone()), 0, SOME).unwrap();
        let reason = ResumeReason::TakenOver;
        held.resume(Resume { reason, away: Duration::from_secs(1) }).unwrap();
        let end = vm.wait_end();
        assert!(matches!(&*end, vmm::vm::End::Exited(0)), "{end} after {until} records");
        ends_alike(&vm, &base.replay(&records));
    }
}
