//! What a standby is told of the VM before it makes one for it.

use crate::{
    kvm::cpu::Model,
    migration::offered::Offered,
    vm::{
        Vm,
        codec::{self, CodecError, Payload},
    },
};
use migrate::replication::Settings;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The shortest time between two heartbeats that a primary may ask for.
const HEARTBEAT_MIN: Duration = Duration::from_micros(100);
/// The longest time that a peer may be silent.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Offer {
    /// The VM, as it is offered for a move.
    pub offered: Offered,
    /// The CPU that it runs on.
    pub cpu: Model,
    /// Time between two heartbeats.
    pub heartbeat: Duration,
    /// Number of heartbeats missed after which a silent peer is suspected.
    pub misses: u32,
    /// Whether the VM is to move: then the roles are swapped as soon as they can be, and the set is
    /// over.
    pub moves: bool,
}

#[derive(Serialize, Deserialize)]
struct Fields {
    #[serde(with = "serde_bytes")]
    offered: Vec<u8>,
    cpu: Model,
    heartbeat: Duration,
    misses: u32,
    moves: bool,
}

impl Offer {
    /// Of `vm`.
    pub fn of(vm: &Vm, settings: &Settings, moves: bool) -> Self {
        let Settings { heartbeat, misses, .. } = *settings;
        Self { offered: Offered::of(vm), cpu: Model::of_this_host(), heartbeat, misses, moves }
    }

    /// The encoded form.
    pub fn to_bytes(&self) -> Vec<u8> {
        let Self { offered, cpu, heartbeat, misses, moves } = self.clone();
        let offered = offered.to_bytes();
        codec::encode(Payload::Protection, &Fields { offered, cpu, heartbeat, misses, moves })
    }

    /// Decodes it.
    ///
    /// # Errors
    /// [`CodecError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CodecError> {
        let Fields { offered, cpu, heartbeat, misses, moves } =
            codec::decode(Payload::Protection, bytes)?;
        let silence = heartbeat.checked_mul(misses);
        if heartbeat < HEARTBEAT_MIN || misses == 0 || silence.is_none_or(|s| s > SILENCE_MAX) {
            return Err(CodecError::Garbled("interval of heartbeats"));
        }
        Ok(Self { offered: Offered::from_bytes(&offered)?, cpu, heartbeat, misses, moves })
    }
}
