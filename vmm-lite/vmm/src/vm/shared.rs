//! What the threads of one VM share: a few types, each with its own locks.
//!
//! Lock order: the vCPUs' and the devices' locks (see [`Vcpus`]), then that of the vCPU control's
//! state, then [`Decisions`]. [`Fence`]'s and [`Record`]'s are held alone or innermost.

use super::{
    Error, Identity, announce::Fence, decisions::Decisions, network::NetPort, record::Record,
};
use crate::{
    devices::gate::Gate,
    kvm::DirtyLog,
    vcpu::{Phase, Vcpus},
};
use kvm_bindings::CpuId;
use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

pub(super) struct Shared {
    pub identity: Identity,
    pub log: DirtyLog,
    /// The CPU features that KVM supports.
    pub cpuid: CpuId,
    pub vcpus: Arc<Vcpus>,
    pub decisions: Decisions,
    pub record: Record,
    pub fence: Fence,
    /// Where its output waits, if its inputs are logged.
    pub gate: Mutex<Option<Arc<Gate>>>,
    /// Its network devices, in the order of the networks in its manifest.
    pub nets: Vec<NetPort>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vm").field("identity", &self.identity).finish_non_exhaustive()
    }
}

impl Shared {
    pub(super) fn phase(&self) -> Phase {
        self.vcpus.control.phase()
    }

    /// Where its output waits.
    pub(super) fn gate(&self) -> Option<Arc<Gate>> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_gate(&self, gate: Option<Arc<Gate>>) {
        *self.gate.lock().unwrap_or_else(PoisonError::into_inner) = gate;
    }

    /// # Errors
    /// [`Error::Ended`].
    pub(super) fn ended(&self) -> Result<(), Error> {
        ended(&self.phase())
    }
}

/// # Errors
/// [`Error::Ended`].
pub(super) fn ended(phase: &Phase) -> Result<(), Error> {
    match phase {
        Phase::Ended(end) => Err(Error::Ended(Arc::clone(end))),
        Phase::Running | Phase::Paused { .. } => Ok(()),
    }
}
