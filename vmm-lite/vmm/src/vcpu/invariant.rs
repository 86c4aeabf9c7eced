//! The state that no longer changes, noted and applied before the guest is stopped for a move.

use super::Runner;
use crate::{
    devices::{Devices, net::Net},
    kvm::{self, InvariantVcpuState},
};
use kvm_bindings::kvm_sregs;
use serde::{Deserialize, Serialize};

/// The invariant state, fixed once the guest has begun to run its program, and known before the
/// guest is stopped: of the vCPU that reports it, and of the devices.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct InvariantState {
    /// The vCPU's part.
    pub vcpu: InvariantVcpuState,
    /// The system registers at CPL 3, for what is done on the guest's behalf before it runs. Those
    /// of the state take precedence.
    pub system: kvm_sregs,
    /// For each network device, the offloads that its driver accepts. These may change, which the
    /// state then reports.
    pub offloads: Vec<u32>,
}

impl Runner {
    /// Notes the invariant state. On the vCPU's thread.
    pub(super) fn note_invariant(
        &mut self,
        devices: &Devices,
    ) -> Result<InvariantState, kvm::Error> {
        let vcpu = self.vcpu.note_invariant()?.clone();
        let offloads = devices.bus.of_kind().map(Net::offload).collect();
        Ok(InvariantState { vcpu, system: self.vcpu.system()?, offloads })
    }

    /// Applies the invariant state, as far as this host accepts it: the complete state repeats it.
    pub fn apply_invariant(
        &mut self,
        devices: &mut Devices,
        invariant: &InvariantState,
    ) -> Result<(), kvm::Error> {
        for (net, offload) in devices.bus.of_kind_mut::<Net>().zip(&invariant.offloads) {
            net.tell_offload(*offload);
        }
        self.vcpu.apply_invariant(&invariant.vcpu)
    }

    /// Captures the vCPU on its own thread, so that KVM need not load it on another CPU for that.
    /// An error here occurs again in the capture that needs the state.
    pub(super) fn capture_early(&mut self) {
        if let Err(e) = self.vcpu.capture_early() {
            tracing::debug!("{}", crate::host::with_causes(&e));
        }
    }
}
