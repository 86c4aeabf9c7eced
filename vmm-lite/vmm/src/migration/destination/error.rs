//! Why this host cannot take a part of an arriving VM.

use crate::{memory, vm};
use std::io;

/// Why this host cannot take a part of an arriving VM. The source gets it as text.
#[derive(thiserror::Error, Debug)]
pub(super) enum Error {
    /// There is no VM that could take it.
    #[error("no VM was prepared")]
    NotPrepared,
    /// Pages came after the guest ran that were for before.
    #[error("the guest has run already")]
    Ran,
    /// Pages cannot be missing here.
    #[error("this host does not support post-copy")]
    NoPostCopy,
    /// A page of the VMM's own is missing.
    #[error("the source left out a page that this VMM needs")]
    OwnPage,
    /// A thread could not be woken when all pages are here.
    #[error("no event descriptor")]
    Event(#[source] io::Error),
    /// Pages could not be made missing.
    #[error("cannot discard memory that will be sent again")]
    Discard(#[source] io::Error),
    /// Missing pages cannot be watched or put in place.
    #[error(transparent)]
    Userfault(#[from] memory::UserfaultError),
    /// The error of the guest's memory.
    #[error(transparent)]
    Memory(#[from] memory::Error),
    /// The guest's page tables are missing: this thread would have to receive them.
    #[error("the guest's page tables did not arrive with the state")]
    NoTables,
    /// KVM's tables were filled by others.
    #[error("the guest's page tables changed right before the state arrived")]
    TablesChanged,
    /// The VM's memory may be damaged.
    #[error("the VM's memory could not be warmed")]
    Warm(#[source] vm::Error),
    /// The network queues are missing: this thread would have to receive them.
    #[error("the network queues did not arrive with the state")]
    NoQueues,
    /// The state cannot be read.
    #[error(transparent)]
    State(#[from] vm::codec::CodecError),
    /// The VM's error.
    #[error(transparent)]
    Vm(#[from] vm::Error),
    /// A test wants it to fail.
    #[cfg(debug_assertions)]
    #[error(transparent)]
    Injected(io::Error),
}
