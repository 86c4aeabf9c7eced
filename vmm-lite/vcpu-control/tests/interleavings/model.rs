//! A VM of which only the control of its vCPUs is real.

use loom::{
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, AtomicU32, fence},
    },
    thread,
};
use std::{cell::Cell, sync::atomic::Ordering::SeqCst};
use vcpu_control::{Control, Guest, Kick, Platform, Stopped, Wake};

/// A flag for which threads wait.
#[derive(Default)]
pub struct Flag {
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
pub struct Run {
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
pub struct Cpu(Arc<Run>);

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
pub struct Eventfd(Flag, pub AtomicU32);

impl Wake for Eventfd {
    fn wake(&self) {
        self.0.set();
    }
}

/// What a vCPU's lock protects. (`TryMutex` in the crate's `sync` panics if two threads have it.)
#[derive(Default)]
pub struct Machine(Cell<u32>);

impl Machine {
    /// Counts, and returns the count.
    pub fn touch(&self) -> u32 {
        self.0.set(self.0.get() + 1);
        self.0.get()
    }
}

#[derive(Default)]
pub struct Model {
    pub ended: AtomicBool,
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

pub type Vm = Arc<Control<Model>>;

/// What a guest does when it runs.
#[derive(Clone, Copy, PartialEq)]
pub enum Program {
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

pub struct Machines {
    pub vm: Vm,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Machines {
    /// A paused VM whose vCPUs run these programs.
    pub fn new(programs: &[Program]) -> Self {
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

    /// The same, resumed.
    pub fn running(programs: &[Program]) -> Self {
        let machines = Self::new(programs);
        machines.resume();
        machines
    }

    /// Ends the VM.
    pub fn stop(self) {
        self.vm.end("stopped");
        self.join();
    }

    fn resume(&self) {
        let held = self.vm.take_hold().unwrap();
        assert!(self.vm.run(|| false).unwrap());
        drop(held);
    }

    /// The VM has ended: its threads do too.
    pub fn join(self) {
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert!(self.vm.phase().is_ended());
        assert!(self.vm.platform().ended.load(SeqCst));
    }
}
