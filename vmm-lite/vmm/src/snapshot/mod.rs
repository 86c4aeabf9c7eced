//! VMs at rest and VMs in numbers: snapshots to a file, restoring from one, clones of a VM that
//! runs, and putting a VM back.
//!
//! - [`copy`]: copies a VM that runs, as it is at one instant, into a [`sink`]; the VM stands for
//!   no longer than a move's blackout
//! - `rounds`, `cow`: two ways to do that
//! - [`sink`]: where the copy goes: a snapshot file, or a template that clones share
//! - [`guest`]: who a VM is and its state, as parts of a file
//! - [`new_file`]: files that appear under their name whole or not at all
//! - [`load`], [`lazy`]: memory from a file, before the guest runs or while it does
//! - `pace`: how much a thread does behind a guest's back before it looks whether the guest waits
//!   for it
//! - [`start`]: a VM from what was copied, as somebody else
//! - `clock`: how the clock of such a VM goes on
//! - [`clones`]: many of them, each in a process of its own
//! - [`merge`](self::merge): a whole snapshot of one and the difference to it
//! - [`revert`]: a VM that runs becomes what it was
//! - [`operations`]: the operations of a VM that runs
//!
//! The VM's own process opens no file for any of this: whoever asks hands over descriptors, so that
//! it works for a VM that may open none.

mod clock;
pub mod clones;
pub mod copy;
mod cow;
pub mod lazy;
pub mod load;
pub mod merge;
pub mod new_file;
pub mod operations;
mod pace;
pub mod revert;
mod rounds;
pub mod saved_vm;
pub mod sink;
pub mod start;

pub use clock::GuestClock;

use crate::{host::confine, memory, vm};
use std::io;

/// Why a snapshot was not taken, or nothing was made from one.
#[derive(thiserror::Error, Debug)]
pub enum Error {
    /// The file.
    #[error(transparent)]
    Format(#[from] migrate::snapshot::Error),
    /// The VM.
    #[error(transparent)]
    Vm(#[from] vm::Error),
    /// Its memory.
    #[error(transparent)]
    Memory(#[from] memory::Error),
    /// Faults of its memory.
    #[error(transparent)]
    Userfault(#[from] memory::UserfaultError),
    /// The disk is full, or the like.
    #[error("the copy cannot be written")]
    Write(#[source] io::Error),
    /// A thread that could not be confined.
    #[error(transparent)]
    Confine(#[from] confine::Error),
    /// Another call to the host failed.
    #[error("cannot {doing}")]
    Host {
        /// What was tried.
        doing: &'static str,
        /// What the host said.
        source: io::Error,
    },
    /// Memory that it needs is not here, and does not come in time.
    #[error(transparent)]
    Incomplete(#[from] vm::Incomplete),
    /// Nobody waits for it any more.
    #[error("it was called off, or whoever asked for it went away")]
    Cancelled,
    /// Memory that is not whole is loaded already.
    #[error("the VM's memory is being loaded already")]
    Loading,
    /// A part that only the VMM understands.
    #[error("{0}: the snapshot is damaged, or newer than this vmm-lite")]
    Codec(#[from] vm::codec::CodecError),
    /// Only the differences are there.
    #[error(
        "this is the difference to another snapshot; make a whole one first: vmm-lite merge BASE \
         THIS -o WHOLE"
    )]
    Difference,
    /// A base that is a difference itself.
    #[error(
        "the base is a difference itself; make a whole one first: vmm-lite merge BASE DIFF -o WHOLE"
    )]
    BaseIsDifference,
    /// A base of another memory size.
    #[error("the base is of a VM with another size of memory")]
    BaseSize,
    /// A way of copying that is none.
    #[error("the ways to copy a VM that runs are auto, rounds and copy-on-write")]
    Mode,
    /// The difference is one to something else.
    #[error("this is not the snapshot that the difference was made to, or it has changed since")]
    WrongBase,
    /// The host's CPU is not good enough.
    #[error("this host's CPU lacks what the VM may have found on its own: {}", .0.join(", "))]
    Features(Vec<String>),
    /// Another VM's snapshot.
    #[error("the snapshot is of a VM that differs from this one in {0}")]
    Differs(&'static str),
    /// A guest that could not be asked.
    #[error(
        "the VM's program did not come to say in time that it is ready to be copied (it computes \
         without ever waiting, or a quiesce hook takes long); try again"
    )]
    NotReady,
    /// What was asked for cannot be had from this snapshot.
    #[error("{0}")]
    Options(String),
}

fn host(doing: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Host { doing, source }
}
