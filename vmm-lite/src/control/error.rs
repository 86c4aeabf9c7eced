//! Why a request is answered with an error.

use super::moves;
use api::{ErrorKind, Failure};
use migrate::source::Failure as MoveFailure;
use vmm::{
    capture, migration,
    replication::protection,
    snapshot,
    vm::{self, Incomplete, NotCancelled},
};

/// Why a request is answered with an error.
#[derive(thiserror::Error, Debug)]
pub enum Error {
    /// It is not one that can be served.
    #[error(transparent)]
    Request(#[from] api::request::Error),
    /// It came with another number of files.
    #[error("{came} files came with the request, {expected} were expected")]
    Files {
        /// So many.
        came: usize,
        /// What the verb takes.
        expected: usize,
    },
    /// The VM's error.
    #[error(transparent)]
    Vm(#[from] vm::Error),
    /// Nothing was cancelled.
    #[error(transparent)]
    NotCancelled(#[from] NotCancelled),
    /// The error of a snapshot, fork or revert.
    #[error(transparent)]
    Copy(#[from] snapshot::Error),
    /// The error of a move.
    #[error(transparent)]
    Move(#[from] moves::Error),
    /// The VM is not protected, or did not swap roles.
    #[error(transparent)]
    Protection(#[from] protection::Error),
    /// The verb is for VMs that are not protected.
    #[error(
        "the VM is protected, so that it cannot be {0}: swap roles with its standby (`vmm-lite \
         failover`), or end the protection first (`vmm-lite unprotect`)"
    )]
    Protected(&'static str),
    /// The verb is for the VM, and this is a standby's copy.
    #[error("this is a standby's copy; the VM runs on another host: ask there")]
    Standby,
    /// A member of the request has a value that it may not have.
    #[error("{0:?} of the request is invalid: {1}")]
    Value(&'static str, &'static str),
}

impl Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Request(_) | Self::Files { .. } | Self::Value(..) => ErrorKind::Invalid,
            Self::Vm(e) => of_vm(e),
            Self::NotCancelled(NotCancelled::Nothing) => ErrorKind::NoOperation,
            Self::NotCancelled(NotCancelled::Committed | NotCancelled::Over) => ErrorKind::TooLate,
            Self::Copy(snapshot::Error::Vm(e)) => of_vm(e),
            Self::Copy(snapshot::Error::Incomplete(e)) => of_wait(e),
            Self::Copy(snapshot::Error::Copy(capture::Error::Cancelled)) => ErrorKind::Cancelled,
            Self::Copy(_) => ErrorKind::Failed,
            Self::Move(e) => of_move(e),
            Self::Protection(protection::Error::Vm(e)) => of_vm(e),
            Self::Protection(protection::Error::Timeout(..)) => ErrorKind::Timeout,
            Self::Protection(_) | Self::Protected(_) | Self::Standby => ErrorKind::Failed,
        }
    }
}

fn of_vm(error: &vm::Error) -> ErrorKind {
    match error {
        vm::Error::Busy(_) => ErrorKind::Busy,
        vm::Error::Ended(_) => ErrorKind::Ended,
        vm::Error::HandedOver(_) => ErrorKind::HandedOver,
        vm::Error::NotPaused => ErrorKind::NotPaused,
        _ => ErrorKind::Failed,
    }
}

fn of_wait(error: &Incomplete) -> ErrorKind {
    match error {
        Incomplete::Ended(_) => ErrorKind::Ended,
        Incomplete::Cancelled(_) | Incomplete::AskerGone(_) => ErrorKind::Cancelled,
        Incomplete::Timeout { .. } => ErrorKind::Timeout,
        Incomplete::Away { .. } | Incomplete::Lost(_) | Incomplete::Host(_) => ErrorKind::Failed,
    }
}

fn of_move(error: &moves::Error) -> ErrorKind {
    match error {
        moves::Error::Address(_) | moves::Error::Transport(_) | moves::Error::Options(_) => {
            ErrorKind::Invalid
        }
        moves::Error::Identity(_) => ErrorKind::Failed,
        moves::Error::Move(migration::Error::Vm(e)) => of_vm(e),
        moves::Error::Move(migration::Error::Incomplete(e)) => of_wait(e),
        moves::Error::Move(migration::Error::Failed(MoveFailure::Cancelled(_))) => {
            ErrorKind::Cancelled
        }
        moves::Error::Move(migration::Error::Failed(MoveFailure::Timeout { .. })) => {
            ErrorKind::Timeout
        }
        moves::Error::Move(_) => ErrorKind::Failed,
    }
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        Self { error: vmm::host::with_causes(error), kind: error.kind(), retry: false }
    }
}
