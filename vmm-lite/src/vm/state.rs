//! Everything of a machine that is not its memory.

use crate::{
    devices::{
        clock::ClockState,
        console::ConsoleState,
        net::{NetState, StateError},
    },
    kvm::{self, VcpuState},
};
use serde::{Deserialize, Serialize};

/// What moves beside the memory. Encoded as postcard; who the machine is, is in [`Identity`](super::Identity), which goes ahead.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct VmState {
    /// The vCPU.
    pub vcpu: VcpuState,
    /// The network device, if there is one.
    pub net: Option<NetState>,
    /// The console.
    pub console: ConsoleState,
    /// The clock.
    pub clock: ClockState,
    /// Doorbell bits rung and not served yet.
    pub unserved: u32,
    /// Number of the last quiesce request.
    pub quiesce_number: u32,
}

/// Why a state was not applied. The machine is then good for nothing but to be dropped.
#[derive(thiserror::Error, Debug)]
pub enum ApplyError {
    /// The vCPU's.
    #[error(transparent)]
    Vcpu(#[from] kvm::Error),
    /// The network device's.
    #[error(transparent)]
    Net(#[from] StateError),
    /// One has a network device and the other has not.
    #[error("the state and the machine do not agree on whether there is a network device")]
    Network,
    /// Doorbell bits that have no meaning.
    #[error("the state has doorbell bits {0:#x}, which mean nothing")]
    Doorbell(u32),
}
