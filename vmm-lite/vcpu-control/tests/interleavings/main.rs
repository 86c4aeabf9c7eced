//! Every order in which the threads of a VM can steer its vCPUs, by the model checker loom: no
//! request is lost, and a thread that holds the VM is alone with it. A lost one is a deadlock here,
//! as a guest runs, or waits, until it is told otherwise.
//!
//! `cargo test -p vmm-lite-vcpu-control --features loom`

mod model;

use loom::{sync::Arc, thread};
use model::{Machine, Machines, Model, Program};
use std::sync::atomic::Ordering::SeqCst;
use vcpu_control::{Control, Held, OtherHolder, Phase};

fn pause(vm: &Control<Model>) -> Result<Held<'_, Machine>, &'static str> {
    if let Some(held) = vm.take_waiting() {
        return Ok(held);
    }
    let _want = vm.want_pause();
    let waited = vm.wait_stopped(None, OtherHolder::Wait)?;
    Ok(waited.held().expect("there is no deadline"))
}

/// Holds the VM for a moment, and lets it run again.
fn pause_and_resume(vm: &Control<Model>) {
    let Ok(held) = pause(vm) else { return };
    for machine in &held {
        let _ = machine.touch();
    }
    assert!(!vm.phase().is_running());
    // Unless it is to end.
    let _ = vm.run(|| false);
}

fn check(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

#[test]
fn a_pause_stops_a_guest_that_computes_or_waits() {
    for program in [Program::Computes, Program::Waits] {
        check(5, move || {
            let machines = Machines::running(&[program]);
            pause_and_resume(&machines.vm);
            machines.stop();
        });
    }
}

#[test]
fn a_pause_is_not_lost_when_another_thread_resumes() {
    for program in [Program::Computes, Program::Waits] {
        check(2, move || {
            let machines = Machines::running(&[program]);
            let vm = Arc::clone(&machines.vm);
            let other = thread::spawn(move || pause_and_resume(&vm));
            pause_and_resume(&machines.vm);
            other.join().unwrap();
            machines.stop();
        });
    }
}

/// The end is requested while another thread, which holds the VM, lets it run.
#[test]
fn an_end_is_not_lost_when_another_thread_resumes() {
    for program in [Program::Computes, Program::Waits] {
        check(3, move || {
            let machines = Machines::new(&[program]);
            let vm = Arc::clone(&machines.vm);
            let other = thread::spawn(move || {
                if let Ok(held) = vm.take_hold() {
                    let ends = vm.end_wanted();
                    let runs = vm.run(|| false);
                    assert!(!ends || runs != Ok(true), "a VM that is to end is not resumed");
                    drop(held);
                }
            });
            machines.vm.end("stopped");
            other.join().unwrap();
            machines.join();
        });
    }
}

/// A thread that waits for the VM to be released gets it, although it stays paused.
#[test]
fn a_released_vm_is_taken_by_the_next() {
    check(3, || {
        let machines = Machines::running(&[Program::Waits]);
        let vm = Arc::clone(&machines.vm);
        let other = thread::spawn(move || drop(pause(&vm).map(|held| (vm.release(), held))));
        drop(pause(&machines.vm).map(|held| (machines.vm.release(), held)));
        other.join().unwrap();
        assert!(machines.vm.phase().is_paused());
        machines.stop();
    });
}

/// A guest that was stopped in its wait looks again after the resume, as something may have been
/// written for it.
#[test]
fn a_resume_ends_the_wait_of_a_guest() {
    check(3, || {
        let machines = Machines::running(&[Program::Reports]);
        if let Some(held) = machines.vm.take_waiting() {
            let before = held[0].touch();
            assert!(machines.vm.run(|| false).unwrap());
            drop(held);
            machines.vm.wait_until(None, |_, _| {
                let looked = machines.vm.wake(0).1.load(SeqCst);
                (looked > before).then_some(())
            });
        }
        machines.stop();
    });
}

#[test]
fn an_end_and_a_pause_at_once_both_return() {
    check(3, || {
        let machines = Machines::running(&[Program::Waits]);
        let vm = Arc::clone(&machines.vm);
        let other = thread::spawn(move || pause_and_resume(&vm));
        machines.vm.end("stopped");
        other.join().unwrap();
        machines.join();
    });
}

#[test]
fn a_guest_that_answers_is_quiescent() {
    check(5, || {
        let machines = Machines::running(&[Program::Quiesces]);
        let want = machines.vm.want_quiesce();
        let waited = machines.vm.wait_stopped(None, OtherHolder::Wait).unwrap();
        let held = waited.held().expect("there is no other holder");
        drop(want);
        assert!(matches!(machines.vm.phase(), Phase::Paused { quiescent: true, .. }));
        machines.vm.release();
        drop(held);
        machines.stop();
    });
}

#[test]
fn a_guest_that_ends_meanwhile_is_reported_to_the_pauser() {
    check(5, || {
        let machines = Machines::running(&[Program::Exits]);
        if let Ok(held) = pause(&machines.vm) {
            // It had not run yet.
            assert!(machines.vm.run(|| false).unwrap());
            drop(held);
        }
        let end = machines.vm.wait_until(None, |phase, _| match phase {
            Phase::Ended(end) => Some(*end),
            Phase::Running | Phase::Paused { .. } => None,
        });
        assert_eq!(end, Some("exited"));
        machines.join();
    });
}

#[test]
fn a_failure_of_the_host_ends_a_vm_whatever_it_does() {
    for program in [Program::Computes, Program::Exits] {
        check(3, move || {
            let machines = Machines::running(&[program]);
            let vm = Arc::clone(&machines.vm);
            let other = thread::spawn(move || pause_and_resume(&vm));
            // Without a limit, as time does not pass here.
            let later = std::time::Instant::now() + std::time::Duration::from_secs(3600);
            machines.vm.fail("failed", later, || ());
            other.join().unwrap();
            let Phase::Ended(end) = machines.vm.phase() else { panic!() };
            assert!(end == "failed" || program == Program::Exits);
            machines.join();
        });
    }
}

/// The barrier: the VM is paused when all of its vCPUs have stopped.
#[test]
fn a_pause_stops_every_vcpu() {
    for programs in [[Program::Computes, Program::Waits], [Program::Quiesces, Program::Computes]] {
        check(2, move || {
            let machines = Machines::running(&programs);
            pause_and_resume(&machines.vm);
            machines.stop();
        });
    }
}

/// What one vCPU's guest does stops the others.
#[test]
fn an_answer_or_an_end_of_one_vcpu_stops_the_others() {
    check(2, || {
        let machines = Machines::running(&[Program::Quiesces, Program::Computes]);
        let want = machines.vm.want_quiesce();
        let waited = machines.vm.wait_stopped(None, OtherHolder::Wait).unwrap();
        let held = waited.held().expect("there is no other holder");
        drop(want);
        assert!(matches!(machines.vm.phase(), Phase::Paused { quiescent: true, .. }));
        machines.vm.release();
        drop(held);
        machines.stop();
    });
    check(2, || {
        let machines = Machines::running(&[Program::Exits, Program::Computes]);
        machines.join();
    });
}
