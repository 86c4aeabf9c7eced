//! Why a VM could not be made or used.

use super::{ApplyError, End, Operation};
use crate::{
    boot::{self, OwnClock},
    devices::net::tap,
    kvm, memory,
};
use std::{io, sync::Arc};

/// Why a VM could not be made or used.
#[derive(thiserror::Error, Debug)]
pub enum Error {
    /// An error of KVM.
    #[error(transparent)]
    Kvm(#[from] kvm::Error),
    /// An error of the guest memory.
    #[error(transparent)]
    Memory(#[from] memory::Error),
    /// An error in the image or its parameters.
    #[error(transparent)]
    Boot(#[from] boot::Error),
    /// An error of the TAP device.
    #[error(transparent)]
    Tap(#[from] tap::Error),
    /// The image needs a TAP and none is given, or the other way round.
    #[error("{0}")]
    Network(&'static str),
    /// Another call to the host failed.
    #[error("cannot {doing}")]
    Host {
        /// What was tried.
        doing: &'static str,
        /// The host's error.
        source: io::Error,
    },
    /// The state cannot be applied.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The VM has ended.
    #[error("the VM has ended: {0}")]
    Ended(Arc<End>),
    /// An operation, or another thread, holds it.
    #[error("the VM is {}; try again when that is done", what_it_is(.0.as_ref()))]
    Busy(Option<Operation>),
    /// The commit of a move was sent.
    #[error("the VM was handed to {0}, which runs it or may run it: it cannot go on here")]
    HandedOver(String),
    /// The commit was not sent.
    #[error("the VM was not handed to another host: resume it without vouching for it")]
    NotHandedOver,
    /// The operator's override contradicts the other host.
    #[error(
        "the other host answers, and decides what happens to the VM: it runs there, or goes on \
         here by itself"
    )]
    Answers,
    /// Its image takes values from the CPU that no log would have.
    #[error(
        "the VM's inputs cannot be recorded: its image was built by an older vmm-lite; build it \
         anew with `vmm-lite build`"
    )]
    NotRecordable,
    /// Its program takes values from the CPU by itself.
    #[error(
        "the VM's inputs cannot be recorded: its program reads clocks or random numbers of the CPU \
         by itself ({0}), which no log has; with --allow-own-clock it is recorded all the same, \
         and a replay may go another way"
    )]
    OwnClock(OwnClock),
    /// It is running.
    #[error("the VM is not paused")]
    NotPaused,
}

fn what_it_is(operation: Option<&Operation>) -> String {
    operation.map_or_else(|| "in use by another request".into(), ToString::to_string)
}
