//! Every order in which the threads of a VM can steer its vCPUs, by the model checker loom: no
//! request is lost, and a thread that holds the VM is alone with it. A lost one is a deadlock here,
//! as a guest runs, or waits, until it is told otherwise.
//!
//! `cargo test -p vmm-lite-vcpu-control --features loom`

use loom::{
    cell::UnsafeCell,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, AtomicU32, fence},
    },
    thread,
};
use std::sync::atomic::Ordering::SeqCst;
use vcpu_control::{Control, Guest, Held, Kick, OtherHolder, Phase, Platform, Stopped, Wake};

/// A flag for which threads wait.
#[derive(Default)]
struct Flag {
    set: Mutex<bool>,
    changed: Condvar,
}

impl Flag {
    fn set(&self) {
        *self.set.lock().unwrap() = true;
        self.changed.notify_all();
    }

    fn wait_and_clear(&self) {
        let mut set = self.set.lock().unwrap();
        while !*set {
            set = self.changed.wait(set).unwrap();
        }
        *set = false;
    }
}

/// `KVM_RUN` with its `immediate_exit`, for a guest that runs until it is made to exit.
#[derive(Default)]
struct Run {
    immediate_exit: AtomicBool,
    signal: Flag,
}

impl Run {
    fn run(&self) {
        // A signal that arrived before the call was handled, and had no effect.
        *self.signal.set.lock().unwrap() = false;
        fence(SeqCst);
        if !self.immediate_exit.load(SeqCst) {
            self.signal.wait_and_clear();
        }
    }
}

#[derive(Clone, Default)]
struct Cpu(Arc<Run>);

impl Guest for Cpu {
    fn exit_at_once(&self, exit: bool) {
        self.0.immediate_exit.store(exit, SeqCst);
        // As in `sync`.
        fence(SeqCst);
    }

    fn interrupt(&self, _: i32) {
        self.0.signal.set();
    }
}

/// The eventfd of a vCPU's thread, and how often that has looked for something to do.
struct Eventfd(Flag, AtomicU32);

impl Wake for Eventfd {
    fn wake(&self) {
        self.0.set();
    }
}

/// What a vCPU's lock protects: the checker finds every access that is not exclusive.
#[derive(Default)]
struct Machine(UnsafeCell<u32>);

impl Machine {
    /// Counts, and returns the count.
    fn touch(&self) -> u32 {
        self.0.with_mut(|n| {
            // SAFETY: the caller has the lock, which the checker verifies.
            let n = unsafe { &mut *n };
            *n += 1;
            *n
        })
    }
}

#[derive(Default)]
struct Model {
    ended: AtomicBool,
}

impl Platform for Model {
    type Machine = Machine;
    type End = &'static str;
    type Guest = Cpu;
    type Wake = Eventfd;

    fn ended(&self) {
        assert!(!self.ended.swap(true, SeqCst), "a VM ends once");
    }

    fn poll_for_a_moment(_: impl Fn() -> bool) {}

    fn yield_now() {
        thread::yield_now();
    }
}

type Vm = Arc<Control<Model>>;

/// What a guest does when it runs.
#[derive(Clone, Copy, PartialEq)]
enum Program {
    /// It computes, and never exits by itself.
    Computes,
    /// It waits for something that does not come.
    Waits,
    /// The same, and its thread reports how often it has looked for something.
    Reports,
    /// It answers a quiesce request at its next exit.
    Quiesces,
    /// It ends.
    Exits,
}

/// The vCPU thread, as in `vmm`.
fn vcpu(vm: &Control<Model>, run: &Run, member: usize, program: Program) {
    while vm.park(member) {
        let Some(machine) = vm.lock_running(member) else { continue };
        let stopped = loop {
            let looked = machine.touch();
            if program == Program::Reports {
                vm.wake(member).1.store(looked, SeqCst);
                vm.changed();
            }
            if program == Program::Exits {
                break Some(Stopped::Ended("exited"));
            }
            if program == Program::Quiesces && vm.quiesce_wanted() {
                break Some(Stopped::Paused { quiescent: true });
            }
            if program != Program::Computes {
                vm.set_waiting(member, true);
                if !vm.pause_wanted() && !vm.quiesce_wanted() {
                    break None;
                }
                vm.set_waiting(member, false);
                if program == Program::Quiesces && vm.quiesce_wanted() {
                    break Some(Stopped::Paused { quiescent: true });
                }
            }
            if !vm.kick(member).enter(1, || vm.pause_wanted()) {
                break Some(Stopped::Paused { quiescent: false });
            }
            run.run();
            vm.kick(member).leave();
        };
        match stopped {
            Some(why) => vm.stopped(member, machine, why),
            None => {
                drop(machine);
                vm.wake(member).0.wait_and_clear();
                vm.set_waiting(member, false);
            }
        }
    }
}

struct Machines {
    vm: Vm,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Machines {
    /// A paused VM whose vCPUs run these programs.
    fn new(programs: &[Program]) -> Self {
        let runs: Vec<Cpu> = programs.iter().map(|_| Cpu::default()).collect();
        let parts = |run: &Cpu| {
            let kick = std::sync::Arc::new(Kick::new(run.clone()));
            (Machine::default(), kick, Eventfd(Flag::default(), AtomicU32::new(0)))
        };
        let vm = Arc::new(Control::new(Model::default(), runs.iter().map(parts)));
        let threads = programs.iter().zip(runs).enumerate().map(|(member, (program, run))| {
            let (vm, program) = (Arc::clone(&vm), *program);
            thread::spawn(move || vcpu(&vm, &run.0, member, program))
        });
        let threads = threads.collect();
        Self { vm, threads }
    }

    fn resume(&self) {
        let held = self.vm.take_hold().unwrap();
        assert!(self.vm.run(|| false).unwrap());
        drop(held);
    }

    /// The VM has ended: its threads do too.
    fn join(self) {
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert!(self.vm.phase().is_ended());
        assert!(self.vm.platform().ended.load(SeqCst));
    }
}

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
            let machines = Machines::new(&[program]);
            machines.resume();
            pause_and_resume(&machines.vm);
            machines.vm.end("stopped");
            machines.join();
        });
    }
}

#[test]
fn a_pause_is_not_lost_when_another_thread_resumes() {
    for program in [Program::Computes, Program::Waits] {
        check(2, move || {
            let machines = Machines::new(&[program]);
            machines.resume();
            let vm = Arc::clone(&machines.vm);
            let other = thread::spawn(move || pause_and_resume(&vm));
            pause_and_resume(&machines.vm);
            other.join().unwrap();
            machines.vm.end("stopped");
            machines.join();
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
        let machines = Machines::new(&[Program::Waits]);
        machines.resume();
        let vm = Arc::clone(&machines.vm);
        let other = thread::spawn(move || drop(pause(&vm).map(|held| (vm.release(), held))));
        drop(pause(&machines.vm).map(|held| (machines.vm.release(), held)));
        other.join().unwrap();
        assert!(machines.vm.phase().is_paused());
        machines.vm.end("stopped");
        machines.join();
    });
}

/// A guest that was stopped in its wait looks again after the resume, as something may have been
/// written for it.
#[test]
fn a_resume_ends_the_wait_of_a_guest() {
    check(3, || {
        let machines = Machines::new(&[Program::Reports]);
        machines.resume();
        if let Some(held) = machines.vm.take_waiting() {
            let before = held[0].touch();
            assert!(machines.vm.run(|| false).unwrap());
            drop(held);
            machines.vm.wait_until(None, |_, _| {
                let looked = machines.vm.wake(0).1.load(SeqCst);
                (looked > before).then_some(())
            });
        }
        machines.vm.end("stopped");
        machines.join();
    });
}

#[test]
fn an_end_and_a_pause_at_once_both_return() {
    check(3, || {
        let machines = Machines::new(&[Program::Waits]);
        machines.resume();
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
        let machines = Machines::new(&[Program::Quiesces]);
        machines.resume();
        let want = machines.vm.want_quiesce();
        let waited = machines.vm.wait_stopped(None, OtherHolder::Wait).unwrap();
        let held = waited.held().expect("there is no other holder");
        drop(want);
        assert!(matches!(machines.vm.phase(), Phase::Paused { quiescent: true, .. }));
        machines.vm.release();
        drop(held);
        machines.vm.end("stopped");
        machines.join();
    });
}

#[test]
fn a_guest_that_ends_meanwhile_is_reported_to_the_pauser() {
    check(5, || {
        let machines = Machines::new(&[Program::Exits]);
        machines.resume();
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
            let machines = Machines::new(&[program]);
            machines.resume();
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
            let machines = Machines::new(&programs);
            machines.resume();
            pause_and_resume(&machines.vm);
            machines.vm.end("stopped");
            machines.join();
        });
    }
}

/// What one vCPU's guest does stops the others.
#[test]
fn an_answer_or_an_end_of_one_vcpu_stops_the_others() {
    check(2, || {
        let machines = Machines::new(&[Program::Quiesces, Program::Computes]);
        machines.resume();
        let want = machines.vm.want_quiesce();
        let waited = machines.vm.wait_stopped(None, OtherHolder::Wait).unwrap();
        let held = waited.held().expect("there is no other holder");
        drop(want);
        assert!(matches!(machines.vm.phase(), Phase::Paused { quiescent: true, .. }));
        machines.vm.release();
        drop(held);
        machines.vm.end("stopped");
        machines.join();
    });
    check(2, || {
        let machines = Machines::new(&[Program::Exits, Program::Computes]);
        machines.resume();
        machines.join();
    });
}
