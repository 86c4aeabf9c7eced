//! Captures a VM that runs: its memory while it changes, and its state at one instant.
//!
//! - [`changes`]: what changes in its memory while that is copied in rounds; a move uses it too
//! - [`copy`](copy()): copies a VM, as it is at one instant, into a [`Sink`]; the VM is stopped for
//!   no longer than a move's blackout
//! - `rounds`, `cow`: the two ways to do that
//! - `pace`: how much background work a thread does before it checks whether the guest waits for it

pub mod changes;
mod copy;
mod cow;
pub(crate) mod pace;
mod rounds;

pub use copy::{Alive, Copied, Mode, Phases, Way, copy};
pub(crate) use copy::{touched, undo_stay};
pub use rounds::{AtInstant, copy_exactly};

use crate::{
    kvm,
    memory::{self, PAGE},
    vm,
};
use std::io;

/// A page with its number.
pub type Page = (usize, [u8; PAGE]);

/// Receives pages in any order. A page that is written again replaces its earlier content.
pub trait Sink: Send {
    /// Writes some pages.
    ///
    /// # Errors
    /// When they cannot be written.
    fn pages(&mut self, pages: &[Page]) -> io::Result<()>;
}

/// Why a VM was not captured.
#[derive(thiserror::Error, Debug)]
pub enum Error {
    /// The VM's error.
    #[error(transparent)]
    Vm(#[from] vm::Error),
    /// The dirty log's error.
    #[error(transparent)]
    Kvm(#[from] kvm::Error),
    /// Its memory's error.
    #[error(transparent)]
    Memory(#[from] memory::Error),
    /// The error of serving its page faults.
    #[error(transparent)]
    Userfault(#[from] memory::UserfaultError),
    /// The sink does not take its pages, for example because the disk is full.
    #[error("the copy cannot be written")]
    Sink(#[source] io::Error),
    /// Another call to the host failed.
    #[error("cannot {doing}")]
    Host {
        /// What was tried.
        doing: &'static str,
        /// The host's error.
        source: io::Error,
    },
    /// It was cancelled, or its client disconnected.
    #[error("it was cancelled, or its client disconnected")]
    Cancelled,
}

fn host(doing: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Host { doing, source }
}
