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
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Move => "being moved",
            Self::Snapshot => "being saved to a snapshot",
            Self::Fork => "being copied for clones",
            Self::Revert => "being put back to a snapshot",
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
        let mut control = shared.lock_control();
        let operations = &mut control.operations;
        if let Some(current) = operations.current {
            return Err(Error::Busy(Some(current.what)));
        }
        operations.number += 1;
        operations.current = Some(Current { what, number: operations.number, cancelled: false });
        // A request to cancel an earlier one does not apply to this one.
        let _ = shared.cancel.read();
        drop(control);
        Ok(Self(Arc::clone(shared)))
    }

    /// Reports that it was cancelled, which [`cancel`](super::Vm::cancel) waits for.
    pub fn cancelled(&self) {
        if let Some(current) = &mut self.0.lock_control().operations.current {
            current.cancelled = true;
        }
    }
}

impl Drop for InProgress {
    fn drop(&mut self) {
        let mut control = self.0.lock_control();
        control.operations.last = control.operations.current.take();
        drop(control);
        self.0.changed.notify_all();
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
        let mut control = self.lock_control();
        let current = control.operations.current.ok_or(NotCancelled::Nothing)?;
        // A counter that is full is readable too.
        let _ = self.cancel.write(1);
        loop {
            if control.committed() {
                return Err(NotCancelled::Committed);
            }
            if control.operations.current.is_none_or(|now| now.number != current.number) {
                let ended = control.operations.last.filter(|last| last.number == current.number);
                return match ended {
                    Some(Current { cancelled: true, .. }) => Ok(()),
                    _ => Err(NotCancelled::Over),
                };
            }
            control = self.wait_slowly(control, slow, "it to stop what it is doing");
        }
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
        self.shared.cancel.as_raw_fd()
    }
}
