//! Why a VM is not protected, or a swap did not take place.

use crate::{
    migration::{self, address::Address, connection::LinkError},
    snapshot, vm,
};

/// Why a VM is not protected, or a swap did not take place. The VM runs on.
#[derive(thiserror::Error, Debug)]
pub enum Error {
    /// The standby's address, or this host's credentials.
    #[error(transparent)]
    Move(#[from] migration::Error),
    /// Nothing answers at the standby's address.
    #[error("cannot reach {to}; does `vmm-lite standby --listen {to}` run there?")]
    Unreachable {
        /// The address.
        to: Address,
        /// The network's error.
        source: std::io::Error,
    },
    /// The connection to the standby.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The VM's error.
    #[error(transparent)]
    Vm(#[from] vm::Error),
    /// The copy for the standby failed.
    #[error(transparent)]
    Copy(#[from] snapshot::Error),
    /// The standby does not accept the VM.
    #[error("the standby refused: {0}")]
    Refused(String),
    /// The standby has another model of CPU.
    #[error(transparent)]
    Model(#[from] crate::replication::journal::Refused),
    /// The arbiter did not make the set's record.
    #[error("the arbiter does not answer: {0}; the VM runs on unprotected")]
    Arbiter(String),
    /// It is no primary with a standby in sync, or no primary at all.
    #[error("{0}")]
    NotNow(String),
    /// It took too long.
    #[error("{0} took longer than {1:?}")]
    Timeout(&'static str, std::time::Duration),
    /// The connection was lost as the VM was handed over.
    #[error(
        "the connection was lost as the VM was given to the other host, and it may run there: \
         look there. If it does not, `vmm-lite resume --i-know-it-runs-nowhere-else` has it go on \
         here; until then it stands"
    )]
    Unknown,
    /// A call to the host failed.
    #[error("cannot {doing}")]
    Host {
        /// What.
        doing: &'static str,
        /// The host's error.
        source: std::io::Error,
    },
}
