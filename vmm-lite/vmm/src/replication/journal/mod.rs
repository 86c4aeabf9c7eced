//! The inputs of a VM on disk: its journal. `docs/journal-format.md` has the files,
//! `docs/lockstep.md` what a user gets.
//!
//! - `write`: keeps the journal of a VM that runs
//! - `snapshots`: the VM at other instants in it, so that no replay is long
//! - `read`: a VM from a journal, and the records that it replays
//! - `identity`: what a journal says of the VM and its CPU

mod identity;
mod read;
mod snapshots;
mod write;

pub use ::journal::{Keep, Pruned, Stats, SyncPolicy, Torn};
pub use identity::Refused;
pub use read::{Opened, Until};
pub use snapshots::Snapshots;
pub use write::{Journal, Options, Reopened};

use crate::{snapshot, vm};

/// Why a VM has no journal, or nothing was made from one.
#[derive(thiserror::Error, Debug)]
pub enum Error {
    /// The error of its files.
    #[error(transparent)]
    Files(#[from] ::journal::Error),
    /// The VM's error.
    #[error(transparent)]
    Vm(#[from] vm::Error),
    /// The error of a VM at one instant.
    #[error(transparent)]
    Base(#[from] snapshot::Error),
    /// It cannot be replayed here.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// It has no VM to begin with.
    #[error("the journal has no snapshot of the VM before {0}: name a later moment")]
    NoBase(String),
    /// A part that only the VMM interprets is invalid for this one.
    #[error("{0}: the journal is damaged, or newer than this vmm-lite")]
    Codec(#[from] vm::codec::CodecError),
}
