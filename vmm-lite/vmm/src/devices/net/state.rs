//! The state of a network device, as it is captured.

use crate::devices::virtio::{TransportError, TransportState};
use serde::{Deserialize, Serialize};

/// Why a network device cannot continue from a state.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
pub enum StateError {
    /// Its registers or queues are invalid.
    #[error("network device: {0}")]
    Transport(#[from] TransportError),
    /// The guest's longest packets do not fit the TAP device.
    #[error(transparent)]
    Mtu(#[from] MtuTooSmall),
}

/// A TAP device whose packets are shorter than the guest's.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
#[error(
    "the guest's packets have up to {guest} bytes (MTU), and those of TAP device {device} have \
     {tap}: allow for longer ones with `ip link set {device} mtu {guest}`, on its bridge too, and \
     try again"
)]
pub struct MtuTooSmall {
    /// The guest's MTU.
    pub guest: u16,
    /// The device's MTU.
    pub tap: u16,
    /// The device.
    pub device: String,
}

/// The device's configuration and registers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NetState {
    /// The guest's Ethernet address.
    pub mac: [u8; 6],
    /// The MTU that it was given.
    pub mtu: u16,
    /// Registers, receive queue and transmit queue.
    pub transport: TransportState<2>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::virtio::QueueState;

    /// The members as the format lists them.
    #[derive(Serialize)]
    struct Listed {
        mac: [u8; 6],
        mtu: u16,
        features_sel: u32,
        driver_features_sel: u32,
        driver_features: u64,
        queue_sel: u32,
        status: u32,
        queues: [QueueState; 2],
    }

    #[test]
    fn its_members_are_encoded_one_after_the_other() {
        let queue = |n: u16| QueueState {
            size: 256,
            ready: true,
            next_avail: n,
            next_used: n,
            desc_table: 0x1000,
            avail_ring: 0x2000,
            used_ring: 0x3000,
        };
        let (mac, mtu, driver_features, queues) = ([2; 6], 1500, 1 << 32 | 5, [queue(7), queue(8)]);
        let (features_sel, driver_features_sel, queue_sel, status) = (1, 0, 1, 15);
        let listed = Listed {
            mac,
            mtu,
            features_sel,
            driver_features_sel,
            driver_features,
            queue_sel,
            status,
            queues,
        };
        let transport = TransportState {
            features_sel,
            driver_features_sel,
            driver_features,
            queue_sel,
            status,
            queues,
        };
        let state = NetState { mac, mtu, transport };
        let bytes = postcard::to_stdvec(&listed).unwrap();
        assert_eq!(postcard::to_stdvec(&state).unwrap(), bytes);
        assert_eq!(postcard::from_bytes(&bytes), Ok(state));
    }
}
