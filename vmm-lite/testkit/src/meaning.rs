//! What the state of a vCPU means, independent of how KVM encodes it.

use vmm::kvm::{VcpuState, xsave};

/// A state that equals another's exactly if both mean the same to a guest.
pub fn meaning(state: &VcpuState) -> VcpuState {
    VcpuState { xsave: xsave::canonical(&state.xsave), ..state.clone() }
}
