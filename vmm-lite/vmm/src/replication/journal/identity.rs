//! What a journal says of its VM and its CPU. A replay is exact only on a CPU of the same model:
//! others round some results differently, and programs choose code by its features.

use crate::{
    kvm::cpu::Model,
    snapshot::saved_vm::VmManifest,
    vm::{
        Vm,
        codec::{self, CodecError, Payload},
    },
};
use serde::{Deserialize, Serialize};

/// Why a journal cannot be replayed on this host.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
#[error(
    "the journal was made on another model of CPU ({there}; this is {here}), on which a replay \
     would go another way: replay it on a host with such a CPU"
)]
pub struct Refused {
    /// The model of the journal.
    pub there: String,
    /// This host's.
    pub here: String,
}

/// The VM, and the CPU on which it was recorded.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Identity {
    pub manifest: VmManifest,
    pub cpu: Model,
}

impl Identity {
    pub fn of(vm: &Vm) -> Self {
        Self { manifest: VmManifest::of(vm), cpu: Model::of_this_host() }
    }

    pub fn encode(&self) -> Vec<u8> {
        codec::encode(Payload::Journal, self)
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode(Payload::Journal, bytes)
    }

    /// Checks that this host runs the VM as the one did that recorded it.
    pub fn fits(&self) -> Result<(), Refused> {
        let here = Model::of_this_host();
        if self.cpu == here {
            return Ok(());
        }
        Err(Refused { there: self.cpu.to_string(), here: here.to_string() })
    }
}
