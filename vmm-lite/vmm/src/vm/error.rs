//! Why a machine could not be made or used.

use super::{ApplyError, End, Operation};
use crate::{boot, devices::tap, kvm, memory};
use std::{io, sync::Arc};

/// Why a machine could not be made or used.
#[derive(thiserror::Error, Debug)]
pub enum Error {
    /// KVM.
    #[error(transparent)]
    Kvm(#[from] kvm::Error),
    /// Guest memory.
    #[error(transparent)]
    Memory(#[from] memory::Error),
    /// The image or its parameters.
    #[error(transparent)]
    Boot(#[from] boot::Error),
    /// The TAP device.
    #[error(transparent)]
    Tap(#[from] tap::Error),
    /// The image was built with a TAP in mind, or the other way round.
    #[error("{0}")]
    Network(&'static str),
    /// Another call to the host failed.
    #[error("cannot {doing}")]
    Host {
        /// What was tried.
        doing: &'static str,
        /// What the host said.
        source: io::Error,
    },
    /// A state that cannot be applied.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The machine has ended.
    #[error("the VM has ended: {0}")]
    Ended(Arc<End>),
    /// An operation, or another thread, has it.
    #[error("the VM is {}; try again when that is done", what_it_is(.0.as_ref()))]
    Busy(Option<Operation>),
    /// The commit of a move was sent.
    #[error("the VM was handed to {0}, which runs it or may run it: it cannot go on here")]
    HandedOver(String),
    /// It was not.
    #[error("the VM was not handed to another host: resume it without vouching for it")]
    NotHandedOver,
    /// An operator's word against the other host's.
    #[error(
        "the other host answers, and says what becomes of the VM: it runs there, or goes on here \
         by itself"
    )]
    Answers,
    /// It runs.
    #[error("the VM is not paused")]
    NotPaused,
}

fn what_it_is(operation: Option<&Operation>) -> String {
    operation.map_or_else(|| "in use by another request".into(), ToString::to_string)
}
