//! What an offer says of the VM besides what every destination must understand.

use crate::{
    kvm::cpu::Features,
    vm::{Identity, Vm},
};
use serde::{Deserialize, Serialize};

/// The `identity` of an offer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Offered {
    /// Who the VM is.
    pub identity: Identity,
    /// What its guest may have come to rely on of the CPU.
    pub features: Features,
    /// What it needs of the destination's devices.
    pub needs: Needs,
}

/// What a VM needs of devices. Sources before this was sent end their offers where it begins;
/// additions follow it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Needs {
    /// The longest packets that its guest may send and expect (MTU).
    pub mtu: Option<u16>,
    /// Whether it may send packets from addresses that are not its own.
    pub spoofs: bool,
}

impl Offered {
    /// What is said of `vm`.
    #[must_use]
    pub fn of(vm: &Vm) -> Self {
        let needs = Needs { mtu: vm.mtu(), spoofs: vm.may_spoof() };
        Self { identity: vm.identity().clone(), features: vm.features(), needs }
    }

    /// As it is sent.
    ///
    /// # Panics
    /// Never: there is nothing in it that postcard cannot write.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        postcard::to_stdvec(&(&self.identity, &self.features, self.needs))
            .expect("an identity has nothing that postcard cannot write")
    }

    /// Reads what was sent; `None` if it makes no sense.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let ((identity, features), rest) = postcard::take_from_bytes(bytes).ok()?;
        let needs = match rest {
            [] => Needs::default(),
            // What follows is of a later version.
            rest => postcard::take_from_bytes(rest).ok()?.0,
        };
        Some(Self { identity, features, needs })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kvm::Host;

    #[test]
    fn offers_of_older_and_later_versions_are_understood() {
        let features = match Host::open().and_then(|host| host.features()) {
            Ok(features) => features,
            Err(e) => return vmm_lite_lab::skipped("offers of other versions", e),
        };
        let identity =
            Identity { name: "kv".into(), memory_size: 16 << 20, interface_version: 2, net: None };
        let offered =
            Offered { identity, features, needs: Needs { mtu: Some(9000), spoofs: true } };
        let mut bytes = offered.to_bytes();
        assert_eq!(Offered::from_bytes(&bytes), Some(offered.clone()));
        bytes.extend([1, 2, 3]);
        assert_eq!(Offered::from_bytes(&bytes), Some(offered.clone()));
        let older = postcard::to_stdvec(&(&offered.identity, &offered.features)).unwrap();
        // So do older destinations with what this one sends.
        let read: (Identity, Features) = postcard::from_bytes(&bytes).unwrap();
        assert_eq!(read, (offered.identity.clone(), offered.features.clone()));
        let offered = Offered { needs: Needs::default(), ..offered };
        assert_eq!(Offered::from_bytes(&older), Some(offered));
        assert_eq!(Offered::from_bytes(&older[..older.len() - 1]), None);
    }
}
