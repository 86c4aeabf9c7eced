//! What a network device tells its driver, and what follows from the features that the driver
//! accepts.

use super::backend::{TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6, VNET_HEADER};
use crate::devices::virtio::{Model, Transport};
use virtio_bindings::{
    virtio_config::VIRTIO_F_VERSION_1,
    virtio_ids::VIRTIO_ID_NET,
    virtio_net::{
        VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO4,
        VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_MAC,
        VIRTIO_NET_F_MTU, VIRTIO_NET_F_STATUS,
    },
};

/// Number of the receive queue.
pub(super) const RECEIVE: usize = 0;
/// Number of the transmit queue.
pub(super) const TRANSMIT: usize = 1;

/// The network device, to the transport.
pub(super) static MODEL: Model<2> = Model {
    name: "network",
    id: VIRTIO_ID_NET,
    features: 1 << VIRTIO_F_VERSION_1
        | 1 << VIRTIO_NET_F_MAC
        | 1 << VIRTIO_NET_F_MTU
        | 1 << VIRTIO_NET_F_STATUS
        | 1 << VIRTIO_NET_F_CSUM
        | 1 << VIRTIO_NET_F_GUEST_CSUM
        | 1 << VIRTIO_NET_F_HOST_TSO4
        | 1 << VIRTIO_NET_F_HOST_TSO6
        | 1 << VIRTIO_NET_F_GUEST_TSO4
        | 1 << VIRTIO_NET_F_GUEST_TSO6,
    queues: ["receive", "transmit"],
};

const LINK_UP: u16 = 1;
const ETHERNET_HEADER: usize = 14;
/// Largest frame where segments may exceed the MTU.
const SEGMENT_MAX: usize = 65_535 + ETHERNET_HEADER;

/// The configuration space.
pub(super) fn space(mac: [u8; 6], mtu: u16) -> [u8; 12] {
    let mut space = [0; 12];
    space[..6].copy_from_slice(&mac);
    space[6..8].copy_from_slice(&LINK_UP.to_le_bytes());
    // One pair of queues.
    space[8..10].copy_from_slice(&1_u16.to_le_bytes());
    space[10..].copy_from_slice(&mtu.to_le_bytes());
    space
}

/// The offloads that the back end may use for this driver.
pub(super) fn offload(transport: &Transport<2>) -> u32 {
    if !transport.has(VIRTIO_NET_F_GUEST_CSUM) || !transport.started() {
        return 0;
    }
    let tso4 = if transport.has(VIRTIO_NET_F_GUEST_TSO4) { TUN_F_TSO4 } else { 0 };
    let tso6 = if transport.has(VIRTIO_NET_F_GUEST_TSO6) { TUN_F_TSO6 } else { 0 };
    TUN_F_CSUM | tso4 | tso6
}

/// The size that a receive buffer must have, with its header, for every frame that the back end may
/// deliver under these offloads.
pub(super) fn frame_max(offload: u32, mtu: u16) -> usize {
    let segments = offload & (TUN_F_TSO4 | TUN_F_TSO6) != 0;
    VNET_HEADER + if segments { SEGMENT_MAX } else { usize::from(mtu) + ETHERNET_HEADER }
}
