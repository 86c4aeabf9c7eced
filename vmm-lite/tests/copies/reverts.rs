//! VMs that are reverted, or fail.

use super::*;

/// A state that a new VM would run, and that only the VM itself refuses: after its memory was
/// already exchanged.
fn refused(vm: &Vm) -> File {
    with_state(vm, |state| state.unserved = 1 << 31)
}

fn put_back(vm: &Vm, file: &File) -> Result<revert::Report, Error> {
    revert::revert(vm, whole(vm), file.try_clone().unwrap(), GuestClock::Continue)
}

#[test]
fn a_revert_that_fails_half_way_leaves_a_running_vm_unchanged() {
    if !kvm() {
        return;
    }
    let vm = vm(2 << 20);
    counts_on(&vm);
    let (good, _) = snapshot(&vm, None, ON_WRITE);
    let bad = refused(&vm);
    for _ in 0..3 {
        counts_on(&vm);
        let before = counted(&vm);
        let error = put_back(&vm, &bad).unwrap_err().to_string();
        assert!(error.contains("doorbell bits 0x80000000"), "{error}");
        assert!(counted(&vm) >= before, "it has its own memory");
        // Memory and registers still belong together, or it would end.
        counts_on(&vm);
        // The reverted pages are recorded as changed.
        for way in [ON_WRITE, ROUNDS] {
            assert_eq!(run(snapshot(&vm, None, way).0), 5);
        }
    }
    // A reverted VM continues behind the question whether it is quiescent, and ends if all is
    // right.
    put_back(&vm, &good).unwrap();
    assert!(matches!(*vm.wait_end(), End::Exited(5)), "{}", vm.wait_end());
}

#[test]
fn a_revert_that_fails_half_way_leaves_a_paused_vm_unchanged() {
    if !kvm() {
        return;
    }
    let vm = vm(2 << 20);
    let bad = refused(&vm);
    counts_on(&vm);
    vm.pause().unwrap().hold_for_operator().unwrap();
    let memory = || {
        let mut all = vec![0; vm.ram().size() as usize];
        vm.ram().read(0, &mut all).unwrap();
        all
    };
    let begun = Instant::now();
    let (state, pages) = (vm.hold().unwrap().capture().unwrap(), memory());
    put_back(&vm, &bad).unwrap_err();
    assert!(matches!(vm.phase(), VmPhase::Paused), "{:?}", vm.phase());
    let now = vm.hold().unwrap().capture().unwrap();
    let went = now.clock.mono_ns - state.clock.mono_ns;
    // The two clocks may differ by some parts in a million.
    assert!(u128::from(went) <= begun.elapsed().as_nanos() * 101 / 100, "its clock advanced once");
    assert_eq!(VmState { clock: state.clock, ..now }, state);
    assert!(memory() == pages, "its memory is its own");
    let mut waits = |what: &str| panic!("it waits for {what}");
    vm.resume_for_operator(&mut Slow::new(&mut waits)).unwrap();
    counts_on(&vm);
}

/// A failure may release memory in any state, such as pages that failed their checksum: no
/// instruction runs on it, even if the VM is being resumed at that moment.
#[test]
fn no_instruction_runs_once_a_vm_has_failed() {
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
    /// How long to watch for an instruction that must not run; one that runs is seen at once.
    const LOOK: Duration = Duration::from_millis(300);
    if !kvm() {
        return;
    }
    for round in 0..12 {
        let vm = vm(2 << 20);
        counts_on(&vm);
        let paused = (round % 3 > 0).then(|| vm.pause().unwrap());
        let (resuming, failing) = (AtomicBool::new(paused.is_none()), vm.clone());
        let ran_on = || {
            let then = counted(&failing);
            let end = Instant::now() + LOOK;
            while counted(&failing) == then && Instant::now() < end {
                std::thread::yield_now();
            }
            counted(&failing) != then
        };
        let mut ran = None;
        let fails = || {
            failing.fail(std::io::Error::other("its memory is bad"), || {
                while !resuming.load(SeqCst) {
                    std::thread::yield_now();
                }
                ran = Some(ran_on());
            });
        };
        std::thread::scope(|scope| {
            let failed = scope.spawn(fails);
            if round % 3 == 1 {
                while !vm.stop_wanted() {
                    std::thread::yield_now();
                }
            }
            if let Some(paused) = paused {
                resuming.store(true, SeqCst);
                // Before or after the failure; in the latter case it does not run.
                let resumed = paused.resume_here();
                assert!(round % 3 == 2 || resumed.is_err(), "a VM that has failed runs");
            }
            failed.join().unwrap();
        });
        assert_eq!(ran, Some(false), "round {round}: it ran on released memory");
        let VmPhase::Ended(end) = vm.phase() else { panic!("{:?}", vm.phase()) };
        assert!(matches!(*end, End::Vmm(_)), "{end}");
    }
}
