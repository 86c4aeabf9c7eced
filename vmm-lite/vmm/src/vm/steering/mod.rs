//! How threads steer the vCPU's thread, and how they learn what it does.
//!
//! A thread that wants the vCPU stopped counts itself among [`Shared::pauses`] (or `quiesces`),
//! then nudges (ends a wait) or kicks (ends the guest). The vCPU's thread announces that it is
//! about to wait or to enter before it looks at the counts for the last time, so that one of the
//! two sees the other. Counts are taken back by the thread that added them and by no other: a
//! resume in between cannot lose a pause.
//!
//! - `wishes`: what other threads want of the vCPU's thread
//! - `requests`: requests to the guest
//! - `holding`: taking hold of the machine
//! - `running`: resume and stop, from both sides
//! - `decisions`: what an operator and a move decide
//! - `ending`: the end of a machine
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

/// For so long a thread waits for another without sleep where blackout depends on it: to be woken
/// takes tens of microseconds. Not for much longer: a thread of real-time priority that does so
/// keeps the host's network, whose work is done by ordinary threads, from its CPU.
const AWAKE: Duration = Duration::from_micros(250);
/// What the vCPU thread does.
#[derive(Clone, Debug)]
pub(super) enum Phase {
    Running,
    Paused {
        /// The guest itself said that it is quiescent.
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
    /// Its state is captured: whether it goes on here is open.
    Open,
    /// The commit is sent.
    Committed,
}

/// What is decided about a VM, under one lock.
#[derive(Debug)]
pub(super) struct Control {
    pub phase: Phase,
    /// The operator wants it paused: an operation that ends does not resume it.
    held: bool,
    /// An operation keeps it paused beyond its end.
    kept: bool,
    /// A [`Paused`](super::Paused) guard holds the machine.
    guarded: bool,
    leaving: Leaving,
    /// The host that it was handed to answers.
    answers: bool,
    /// Where it moves or has moved.
    destination: Option<String>,
    /// Why it is to end, where the host lets it down.
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

/// Waits without sleep until `so`, or for so long that a sleep is worth it.
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

    /// Another thread holds the machine.
    pub(super) fn busy(&self) -> Error {
        self.lock_control().busy()
    }

    /// The operation in progress, and where it was handed to, if the commit of a move was sent.
    pub(super) fn doing(&self) -> (Option<Operation>, Option<String>) {
        let control = self.lock_control();
        (control.operations.what(), control.destination.clone().filter(|_| control.committed()))
    }
}
