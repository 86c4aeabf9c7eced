//! What an offer states about the VM beyond what every destination must understand.

use crate::{
    kvm::cpu::Features,
    vm::{
        Identity, Vm,
        codec::{self, CodecError, Payload},
    },
};
use serde::{Deserialize, Serialize};

/// The `identity` of an offer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Offered {
    /// The VM's manifest.
    pub identity: Identity,
    /// The CPU features that its guest may rely on.
    pub features: Features,
    /// What it needs of the destination's devices.
    pub needs: Needs,
    /// The version of the [handover](Payload::Handover) that the source will send.
    pub handover_version: u8,
}

/// What a VM needs of devices.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Needs {
    /// The longest packets that its guest may send and expect (MTU).
    pub mtu: Option<u16>,
    /// Whether it may send packets from addresses that are not its own.
    pub spoofs: bool,
}

impl Offered {
    /// The statement about `vm`.
    #[must_use]
    pub fn of(vm: &Vm) -> Self {
        Self {
            identity: vm.identity().clone(),
            features: vm.features(),
            needs: Needs { mtu: vm.mtu(), spoofs: vm.may_spoof() },
            handover_version: Payload::Handover.version(),
        }
    }

    /// The encoded form. Sources of before vmm-lite 0.3 send no `own_clock` behind the rest.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        codec::append(codec::encode(Payload::Offer, self), &self.identity.own_clock)
    }

    /// Decodes it. Bytes after it belong to a later version of the same.
    ///
    /// # Errors
    /// [`CodecError`], also if the source sends a state in a version that this host does not read.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CodecError> {
        let (mut offered, rest): (Self, _) = codec::decode_prefix(Payload::Offer, bytes)?;
        if !rest.is_empty() {
            (offered.identity.own_clock, _) = codec::appended(Payload::Offer, rest)?;
        }
        let (theirs, ours) = (offered.handover_version, Payload::Handover.version());
        if theirs != ours {
            return Err(CodecError::Version { what: "state of the VM", theirs, ours });
        }
        Ok(offered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{boot::OwnClock, kvm::Host};

    #[test]
    fn offers_of_later_versions_are_understood_or_refused() {
        let features = match Host::open().and_then(|host| host.features()) {
            Ok(features) => features,
            Err(e) => return vmm_lite_lab::skipped("offers of other versions", e),
        };
        let identity = Identity {
            name: "kv".into(),
            memory_size: 16 << 20,
            interface_version: 2,
            nets: vec![],
            own_clock: OwnClock { count: Some(1), first: vec!["kv::main+0x1: rdtsc".into()] },
        };
        let needs = Needs { mtu: Some(9000), spoofs: true };
        let handover_version = Payload::Handover.version();
        let offered = Offered { identity, features, needs, handover_version };
        let mut bytes = offered.to_bytes();
        assert_eq!(Offered::from_bytes(&bytes), Ok(offered.clone()));
        assert!(Offered::from_bytes(&bytes[..bytes.len() - 1]).is_err());
        // What an older source sends.
        let older = Offered::from_bytes(&codec::encode(Payload::Offer, &offered)).unwrap();
        assert_eq!(older.identity.own_clock, OwnClock::default());
        bytes.extend([1, 2, 3]);
        assert_eq!(Offered::from_bytes(&bytes), Ok(offered.clone()));
        let newer = Offered { handover_version: handover_version + 1, ..offered };
        let said = Offered::from_bytes(&newer.to_bytes()).unwrap_err().to_string();
        assert_eq!(
            said,
            "the state of the VM comes in version 2, and this vmm-lite reads version 1"
        );
    }
}
