//! Snapshots to a file, restoring from one, clones of a running VM, and reverting a VM.
//!
//! - [`sink`]: where the [copy](crate::capture) of a running VM is written: a snapshot file, or a
//!   template that clones share
//! - [`saved_vm`]: a VM's manifest and state, as parts of a file
//! - [`new_file`]: files that appear under their name whole or not at all
//! - [`load`], [`lazy`]: memory from a file, before the guest runs or while it does
//! - [`start`]: a VM from a copy, possibly with another identity
//! - `clock`: how the clock of such a VM continues
//! - [`clones`]: many of them, each in a process of its own
//! - [`merge`]: merges a whole snapshot and a difference to it
//! - [`revert`]: puts a running VM back to a snapshot
//! - [`operations`]: the operations on a running VM
//!
//! The VM's own process opens no file for any of this: the client passes descriptors, so that it
//! works for a VM that may open none.

mod clock;
pub mod clones;
pub mod lazy;
pub mod load;
pub mod merge;
pub mod new_file;
pub mod operations;
pub mod revert;
pub mod saved_vm;
pub mod sink;
pub mod start;

pub use clock::GuestClock;

/// The memory in a snapshot file.
pub type Memory = migrate::snapshot::Reader<sink::Input>;

use crate::{capture, host::confine, memory, vm};
use std::io;

/// Why no snapshot was taken, or nothing was made from one.
#[derive(thiserror::Error, Debug)]
pub enum Error {
    /// The file's error.
    #[error(transparent)]
    Format(#[from] migrate::snapshot::Error),
    /// The VM's error.
    #[error(transparent)]
    Vm(#[from] vm::Error),
    /// Its memory's error.
    #[error(transparent)]
    Memory(#[from] memory::Error),
    /// The error of serving its page faults.
    #[error(transparent)]
    Userfault(#[from] memory::UserfaultError),
    /// A running VM could not be copied.
    #[error(transparent)]
    Copy(#[from] capture::Error),
    /// Writing failed, for example because the disk is full.
    #[error("the copy cannot be written")]
    Write(#[source] io::Error),
    /// A thread could not be confined.
    #[error(transparent)]
    Confine(#[from] confine::Error),
    /// Another call to the host failed.
    #[error("cannot {doing}")]
    Host {
        /// What was tried.
        doing: &'static str,
        /// The host's error.
        source: io::Error,
    },
    /// Memory that it needs is missing, and does not arrive in time.
    #[error(transparent)]
    Incomplete(#[from] vm::Incomplete),
    /// Its memory is incomplete and being loaded already.
    #[error("the VM's memory is being loaded already")]
    Loading,
    /// A VM that was to be loaded runs already.
    #[error("the VM has run already")]
    Ran,
    /// A part that only the VMM interprets is invalid for this one.
    #[error("{0}: the snapshot is damaged, or newer than this vmm-lite")]
    Codec(#[from] vm::codec::CodecError),
    /// The snapshot is a difference.
    #[error(
        "this is the difference to another snapshot; make a whole one first: vmm-lite merge BASE \
         THIS -o WHOLE"
    )]
    Difference,
    /// The base is a difference itself.
    #[error(
        "the base is a difference itself; make a whole one first: vmm-lite merge BASE DIFF -o WHOLE"
    )]
    BaseIsDifference,
    /// The base has another memory size.
    #[error("the base is of a VM with another size of memory")]
    BaseSize,
    /// The difference has another base.
    #[error("this is not the snapshot that the difference was made to, or it has changed since")]
    WrongBase,
    /// The host's CPU lacks features.
    #[error("this host's CPU lacks what the VM may have found on its own: {}", .0.join(", "))]
    Features(Vec<String>),
    /// It is the snapshot of another VM.
    #[error("the snapshot is of a VM that differs from this one in {0}")]
    Differs(&'static str),
    /// It is recorded.
    #[error(
        "the VM has a journal, which would not say that it was put back: stop it, and go back with \
         `vmm-lite restore --journal DIR --until MOMENT`"
    )]
    Recorded,
    /// The guest did not quiesce.
    #[error(
        "the VM's program did not report in time that it is ready to be copied (it computes \
         without ever waiting, or a quiesce hook takes long); try again"
    )]
    NotReady,
    /// The request is impossible with this snapshot.
    #[error("{0}")]
    Options(String),
}

fn host(doing: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Host { doing, source }
}
