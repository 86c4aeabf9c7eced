//! The operation on a VM as a whole: one at a time.

use super::{Error, Slow, Vm, shared::Shared};
use std::{fmt, os::fd::AsRawFd, sync::Arc};

/// An operation that needs the whole VM for a while. There is one at a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    /// It moves to another host.
    Move,
    /// It is saved to a file.
    Snapshot,
    /// It is copied for clones.
    Fork,
    /// It is reverted to a snapshot.
    Revert,
    /// It replays its journal, and goes on where that ends.
    Replay,
    /// It is copied for a standby.
    Protect,
    /// It is a standby's copy.
    StandBy,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Move => "being moved",
            Self::Snapshot => "being saved to a snapshot",
            Self::Fork => "being copied for clones",
            Self::Revert => "being put back to a snapshot",
            Self::Replay => "being brought up to the end of its journal",
            Self::Protect => "being copied for a standby",
            Self::StandBy => "a standby's copy: another host runs it",
        })
    }
}

/// The operation in progress.
#[derive(Clone, Copy, Debug)]
pub(super) struct Current {
    what: Operation,
    number: u64,
    cancelled: bool,
}

/// The operation in progress, and the outcome of the one before.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Operations {
    current: Option<Current>,
    last: Option<Current>,
    number: u64,
}

impl Operations {
    pub fn what(&self) -> Option<Operation> {
        self.current.map(|current| current.what)
    }
}

/// An operation in progress. Dropping this ends it.
#[derive(Debug)]
pub struct InProgress(Arc<Shared>);

impl InProgress {
    /// Begins an operation.
    ///
    /// # Errors
    /// [`Error::Busy`] if there is one.
    pub(super) fn begin(shared: &Arc<Shared>, what: Operation) -> Result<Self, Error> {
        let mut decided = shared.decisions.lock();
        let operations = &mut decided.operations;
        if let Some(current) = operations.current {
            return Err(Error::Busy(Some(current.what)));
        }
        operations.number += 1;
        operations.current = Some(Current { what, number: operations.number, cancelled: false });
        // A request to cancel an earlier one does not apply to this one.
        let _ = shared.decisions.cancel.read();
        drop(decided);
        Ok(Self(Arc::clone(shared)))
    }

    /// Reports that it was cancelled, which [`cancel`](super::Vm::cancel) waits for.
    pub fn cancelled(&self) {
        if let Some(current) = &mut self.0.decisions.lock().operations.current {
            current.cancelled = true;
        }
    }
}

impl Drop for InProgress {
    fn drop(&mut self) {
        let mut decided = self.0.decisions.lock();
        decided.operations.last = decided.operations.current.take();
        drop(decided);
        self.0.vcpus.control.changed();
    }
}

/// Why an operation was not cancelled.
#[derive(thiserror::Error, Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotCancelled {
    /// There is no operation.
    #[error("nothing is being done with the VM that could be called off")]
    Nothing,
    /// The commit of a move was sent.
    #[error("it is too late: the VM was handed to the other host, which runs it")]
    Committed,
    /// It ended first.
    #[error("it is too late: it was done, or had failed, before it could be called off")]
    Over,
}

impl Shared {
    /// Cancels the operation in progress, and waits for its outcome.
    pub(super) fn cancel(&self, slow: &mut Slow<'_>) -> Result<(), NotCancelled> {
        let current = self.decisions.lock().operations.current.ok_or(NotCancelled::Nothing)?;
        // A counter that is full is readable too.
        let _ = self.decisions.cancel.write(1);
        slow.wait(&self.vcpus.control, "it to stop what it is doing", |_, _| {
            let decided = self.decisions.lock();
            if decided.committed() {
                return Some(Err(NotCancelled::Committed));
            }
            let Operations { current: now, last, .. } = decided.operations;
            if now.is_some_and(|now| now.number == current.number) {
                return None;
            }
            let ended = last.filter(|last| last.number == current.number);
            Some(match ended {
                Some(Current { cancelled: true, .. }) => Ok(()),
                _ => Err(NotCancelled::Over),
            })
        })
    }
}

impl Vm {
    /// Begins an operation. Dropping the returned value ends it.
    ///
    /// # Errors
    /// [`Error::Busy`]: there is one.
    pub fn begin(&self, what: Operation) -> Result<InProgress, Error> {
        InProgress::begin(&self.shared, what)
    }

    /// Cancels the operation in progress, and waits for its outcome.
    ///
    /// # Errors
    /// [`NotCancelled`]: it continues, or is over.
    pub fn cancel(&self, slow: &mut Slow<'_>) -> Result<(), NotCancelled> {
        self.shared.cancel(slow)
    }

    /// A descriptor that becomes readable when the operation in progress is to be cancelled.
    #[must_use]
    pub fn cancel_fd(&self) -> i32 {
        self.shared.decisions.cancel.as_raw_fd()
    }
}
