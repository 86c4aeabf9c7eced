//! How threads steer the vCPU thread, and how they learn its state.
//!
//! A thread that wants the vCPU stopped counts itself in [`Shared::pauses`] (or `quiesces`), then
//! nudges (ends a wait) or kicks (makes the vCPU leave the guest). The vCPU thread announces that
//! it is about to wait or to enter before it reads the counts for the last time, so one of the two
//! always sees the other. A thread withdraws only its own counts: a resume in between cannot lose a
//! pause.
//!
//! - `wishes`: requests of other threads to the vCPU thread
//! - `requests`: requests to the guest
//! - `holding`: taking hold of the VM
//! - `running`: resume and stop, from both sides
//! - `decisions`: decisions of an operator and a move
//! - `ending`: the end of a VM
//! - `slow`: waits of an operator's request

mod decisions;
mod ending;
mod holding;
mod requests;
mod running;
mod slow;
mod wishes;

pub(super) use holding::{OtherGuard, Waited};
pub use slow::Slow;

use super::{End, Error, Operation, operation::Operations, shared::Shared};
use crate::host::watchdog;
use std::{
    sync::{Arc, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// How long a thread polls for another where blackout depends on it: a wake-up takes tens of
/// microseconds. Not for much longer: a polling thread of real-time priority keeps ordinary
/// threads, which do the work of the host's network, from its CPU.
const AWAKE: Duration = Duration::from_micros(250);
/// The state of the vCPU thread.
#[derive(Clone, Debug)]
pub(super) enum Phase {
    Running,
    Paused {
        /// The guest itself reported that it is quiescent.
        quiescent: bool,
        /// When it stopped.
        since: Instant,
    },
    Ended(Arc<End>),
}

/// Whether the VM is about to run elsewhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Leaving {
    #[default]
    No,
    /// Its state is captured: whether it continues here is open.
    Open,
    /// The commit is sent.
    Committed,
}

/// The decisions about a VM, under one lock.
#[derive(Debug)]
pub(super) struct Control {
    pub phase: Phase,
    /// The operator wants it paused: an operation that ends does not resume it.
    held: bool,
    /// An operation keeps it paused beyond its end.
    kept: bool,
    /// A [`Paused`](super::Paused) guard holds the VM.
    guarded: bool,
    leaving: Leaving,
    /// The host that it was handed over to answers.
    answers: bool,
    /// Its destination, during a move and after it.
    destination: Option<String>,
    /// Why it has to end, where the host failed.
    failure: Option<Arc<End>>,
    pub operations: Operations,
}

impl Control {
    pub fn new(phase: Phase) -> Self {
        Self {
            phase,
            held: false,
            kept: false,
            guarded: false,
            leaving: Leaving::No,
            answers: false,
            destination: None,
            failure: None,
            operations: Operations::default(),
        }
    }

    /// Whether the commit of a move was sent.
    pub fn committed(&self) -> bool {
        self.leaving == Leaving::Committed
    }

    fn ended(&self) -> Result<(), Error> {
        match &self.phase {
            Phase::Ended(end) => Err(Error::Ended(Arc::clone(end))),
            _ => Ok(()),
        }
    }

    fn busy(&self) -> Error {
        Error::Busy(self.operations.what())
    }

    fn handed_over(&self) -> Error {
        Error::HandedOver(self.destination.clone().unwrap_or_else(|| "another host".into()))
    }
}

/// Polls until `so` holds, or until sleeping is better.
fn awake_until(so: impl Fn() -> bool) {
    let end = Instant::now() + AWAKE;
    while !so() && Instant::now() < end {
        std::thread::yield_now();
    }
}

impl Shared {
    pub(super) fn lock_control(&self) -> MutexGuard<'_, Control> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn phase(&self) -> Phase {
        self.lock_control().phase.clone()
    }

    fn wait_changed<'s>(
        &'s self,
        control: MutexGuard<'s, Control>,
        timeout: Option<Duration>,
    ) -> MutexGuard<'s, Control> {
        // For a thread that is watched itself.
        watchdog::waits(|| match timeout {
            None => self.changed.wait(control).unwrap_or_else(PoisonError::into_inner),
            Some(timeout) => {
                let waited = self.changed.wait_timeout(control, timeout);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
        })
    }

    /// Another thread holds the VM.
    pub(super) fn busy(&self) -> Error {
        self.lock_control().busy()
    }

    /// The operation in progress, and the host that it was handed over to, if the commit was sent.
    pub(super) fn doing(&self) -> (Option<Operation>, Option<String>) {
        let control = self.lock_control();
        (control.operations.what(), control.destination.clone().filter(|_| control.committed()))
    }
}
