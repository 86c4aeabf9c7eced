//! The vCPUs of a VM: each with its thread, which runs the guest and serves the devices at every
//! exit.
//!
//! - `control`: how other threads stop, start and hold them; the protocol is the crate
//!   `vcpu_control`
//! - `thread`: a vCPU's thread
//! - `run`: the loop that runs the guest and handles its exits
//! - `serve`: what the guest asks for with the doorbell
//! - `wait`, `output`: waits for the guest's events; what it prints and sends
//! - `inputs`: the guest's inputs, recorded into a log or taken from one
//! - `invariant`: the state that no longer changes, noted before a move
//! - `requests`: requests to the guest in its control page
//! - `entered`: when the guest was first entered after a resume
//! - `exits`: counters
//! - `health`: what a vCPU thread owes, for the watchdog
//! - `end`: how the guest's run ended
//!
//! Lock order: the vCPUs' locks in their order, then the devices', then that of the control's
//! state. `invariant` is held alone.

mod control;
mod end;
mod entered;
mod exits;
mod health;
mod inputs;
mod invariant;
mod output;
mod requests;
mod run;
mod serve;
mod thread;
mod wait;

pub(crate) use control::{Control, Phase};
pub use end::{End, GuestFault, StopReason};
pub(crate) use exits::Exits;
pub(crate) use inputs::leave_routine;
pub use inputs::{
    DebugLink, DebugStop, Debugged, Leg, Log, Moment, Next, Orders, Outcome, Position,
    RecordOptions, Replayed, Source, Urgency,
};
pub use invariant::InvariantState;
pub(crate) use run::Runner;
pub(crate) use thread::start;

use crate::{
    devices::{Devices, console::Console},
    kvm::{PageFaults, Vcpu},
    memory::{GuestRam, Writable},
};
use control::Surroundings;
use entered::Entered;
use requests::Requests;
use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI32, AtomicU64},
    },
};

/// The vCPUs of a VM, and what their threads share with others.
#[derive(Debug)]
pub(crate) struct Vcpus {
    pub control: Control,
    /// For the thread of a vCPU that stands at an exit, or a thread that holds all of them.
    devices: Mutex<Devices>,
    pub ram: Arc<GuestRam>,
    pub exits: Exits,
    pub requests: Requests,
    pub entered: Entered,
    pub resumes: AtomicU64,
    /// Position of the last record that was replayed.
    pub replay_position: AtomicU64,
    /// How the replay of its log ended.
    replayed: Mutex<Option<Replayed>>,
    pub threads: Box<[ThreadOf]>,
}

/// The thread of a vCPU.
#[derive(Debug)]
pub(crate) struct ThreadOf {
    /// Its id, once it has started.
    pub id: AtomicI32,
    /// The vCPU's page faults, where KVM counts them.
    pub page_faults: Option<Arc<PageFaults>>,
}

impl Vcpus {
    /// vCPUs that are paused.
    pub fn new(
        vcpus: Vec<Vcpu>,
        devices: Devices,
        ram: Arc<GuestRam>,
        console: Console,
    ) -> io::Result<Self> {
        let thread =
            |vcpu: &Vcpu| ThreadOf { id: AtomicI32::new(0), page_faults: vcpu.page_faults() };
        let threads = vcpus.iter().map(thread).collect();
        Ok(Self {
            control: control::of(vcpus.into_iter().map(Runner::new), Surroundings::new(console)?)?,
            devices: Mutex::new(devices),
            ram,
            exits: Exits::default(),
            requests: Requests::default(),
            entered: Entered::default(),
            resumes: AtomicU64::new(0),
            replay_position: AtomicU64::new(0),
            replayed: Mutex::default(),
            threads,
        })
    }

    pub fn console(&self) -> &Console {
        &self.control.platform().console
    }

    /// The right to write to memory, for a device that the vCPU thread serves at an exit of its
    /// guest.
    fn memory_at_exit(&self) -> Writable<'_> {
        self.ram.writable_while_stopped()
    }

    /// How the replay of its log ended, if it has.
    pub fn replayed(&self) -> Option<Replayed> {
        self.replayed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A replay begins.
    pub fn forget_replayed(&self) {
        *self.replayed.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn set_replayed(&self, replayed: Replayed) {
        *self.replayed.lock().unwrap_or_else(PoisonError::into_inner) = Some(replayed);
    }

    pub fn lock_devices(&self) -> MutexGuard<'_, Devices> {
        self.devices.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
