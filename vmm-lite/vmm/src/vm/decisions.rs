//! Decisions about a VM: by its operator, by a move, and which operation is in progress.

use super::{
    End, Error, Slow,
    operation::{Operation, Operations},
    shared::{Shared, ended},
};
use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use vcpu_control::NotHeld;
use vmm_lite_interface::control::ResumeReason;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

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

/// What is decided. A thread that makes a change for which others wait then calls
/// [`changed`](vcpu_control::Control::changed).
#[derive(Debug, Default)]
pub(super) struct Decided {
    /// The operator wants it paused: an operation that ends does not resume it.
    held: bool,
    /// An operation keeps it paused beyond its end.
    kept: bool,
    leaving: Leaving,
    /// The host that it was handed over to answers.
    answers: bool,
    /// Its destination, during a move and after it.
    destination: Option<String>,
    /// The reason of its resume, while it has not run since.
    pub untold: Option<ResumeReason>,
    pub operations: Operations,
}

impl Decided {
    /// Whether the commit of a move was sent.
    pub fn committed(&self) -> bool {
        self.leaving == Leaving::Committed
    }

    /// Whether it stays paused when it is resumed.
    pub fn stays_paused(&self) -> bool {
        self.held || self.kept
    }

    fn handed_over(&self) -> Error {
        Error::HandedOver(self.destination.clone().unwrap_or_else(|| "another host".into()))
    }
}

/// The decisions, under one lock.
pub(super) struct Decisions {
    decided: Mutex<Decided>,
    /// Readable when the operation in progress is to be cancelled.
    pub cancel: EventFd,
    /// Readable when an operator vouches that the VM runs nowhere else.
    pub vouched: EventFd,
}

impl Decisions {
    pub fn new() -> io::Result<Self> {
        let event = || EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC);
        Ok(Self { decided: Mutex::default(), cancel: event()?, vouched: event()? })
    }

    pub fn lock(&self) -> MutexGuard<'_, Decided> {
        self.decided.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// Records that the operator wants it paused, or no longer does. Returns the previous value.
    ///
    /// # Errors
    /// [`Error::Ended`]; [`Error::HandedOver`] after the commit of a move.
    pub(super) fn hold(&self, held: bool) -> Result<bool, Error> {
        self.ended()?;
        let mut decided = self.decisions.lock();
        if decided.committed() {
            return Err(decided.handed_over());
        }
        let before = decided.stays_paused();
        decided.held = held;
        decided.kept &= held;
        Ok(before)
    }

    /// Records that an operation keeps it paused beyond its end, or not after all.
    pub(super) fn keep(&self, kept: bool) {
        self.decisions.lock().kept = kept;
    }

    /// Records its destination.
    pub(super) fn set_destination(&self, to: String) {
        self.decisions.lock().destination = Some(to);
    }

    /// Whether it may end here without loss.
    ///
    /// # Errors
    /// [`Error::HandedOver`]: the destination may need what only this process has.
    pub(super) fn may_end(&self) -> Result<(), Error> {
        let phase = self.phase();
        let decided = self.decisions.lock();
        if decided.committed() && !phase.is_ended() { Err(decided.handed_over()) } else { Ok(()) }
    }

    /// Whether an operator override was carried out. Waits for that.
    ///
    /// # Errors
    /// [`Error::Answers`], [`Error::Ended`].
    pub(super) fn wait_vouched(&self, slow: &mut Slow<'_>) -> Result<(), Error> {
        self.decisions.lock().answers = false;
        // A counter that is full is readable too.
        let _ = self.decisions.vouched.write(1);
        let what = "the other host, which is asked once more";
        slow.wait(&self.vcpus.control, what, |phase, _| {
            let decided = self.decisions.lock();
            if !decided.committed() {
                return Some(Ok(()));
            }
            if decided.answers {
                return Some(ended(phase).and(Err(Error::Answers)));
            }
            ended(phase).err().map(Err)
        })
    }

    /// Records that the other host answers: it decides what happens to the VM.
    pub(super) fn refuse_vouching(&self) {
        let _ = self.decisions.vouched.read();
        self.decisions.lock().answers = true;
        self.vcpus.control.changed();
    }

    /// Records that the state is captured for a move: from now on the operator's choice of pause
    /// cannot change until it is decided where the VM continues. Returns whether it will be paused
    /// there.
    pub(super) fn leave(&self) -> bool {
        let mut decided = self.decisions.lock();
        decided.leaving = Leaving::Open;
        decided.held
    }

    /// Permits the VM to continue here, or never again unless the destination permits it.
    pub(super) fn fenced(&self, fenced: bool) {
        self.decisions.lock().leaving = if fenced { Leaving::Committed } else { Leaving::No };
        self.vcpus.control.changed();
    }

    /// Waits while another thread holds the VM in a way that leaves open where it continues.
    /// Returns whether it is still held, by an operation that leaves it here.
    ///
    /// # Errors
    /// [`Error::Ended`]; [`Error::HandedOver`]: it continues elsewhere.
    pub(super) fn wait_decided(&self, slow: &mut Slow<'_>) -> Result<bool, Error> {
        let what = "the move to decide where it goes on";
        slow.wait(&self.vcpus.control, what, |phase, held| {
            if let Err(e) = ended(phase) {
                return Some(Err(e));
            }
            let decided = self.decisions.lock();
            match decided.leaving {
                Leaving::Committed => Some(Err(decided.handed_over())),
                Leaving::No => Some(Ok(held)),
                Leaving::Open => None,
            }
        })
    }

    /// Why the vCPUs' control refused, as the VM's error.
    pub(super) fn not_held(&self, not: NotHeld<Arc<End>>) -> Error {
        match not {
            NotHeld::Ended(end) => Error::Ended(end),
            NotHeld::Busy => self.busy(),
        }
    }

    /// Another thread holds the VM.
    pub(super) fn busy(&self) -> Error {
        Error::Busy(self.decisions.lock().operations.what())
    }

    /// The operation in progress, and the host that it was handed over to, if the commit was sent.
    pub(super) fn doing(&self) -> (Option<Operation>, Option<String>) {
        let decided = self.decisions.lock();
        (decided.operations.what(), decided.destination.clone().filter(|_| decided.committed()))
    }
}
