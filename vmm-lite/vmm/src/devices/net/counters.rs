//! What a network device counts.

use super::backend::VNET_HEADER;
use crate::devices::throttle::HeldBack;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering::Relaxed};

/// Traffic of a device since it was made.
#[derive(Debug, Default)]
pub struct Counters {
    /// Packets to the guest.
    pub rx_packets: AtomicU64,
    /// Their bytes, without our headers.
    pub rx_bytes: AtomicU64,
    /// Packets to the guest that did not fit its buffers.
    pub rx_dropped: AtomicU64,
    /// Packets from the guest.
    pub tx_packets: AtomicU64,
    /// Their bytes.
    pub tx_bytes: AtomicU64,
    /// Packets from the guest that the host did not accept.
    pub tx_dropped: AtomicU64,
    /// Packets from the guest with a source address that is not its own.
    pub tx_spoofed: AtomicU64,
    /// Packets to the guest that the rate limit delayed.
    pub rx_held: HeldBack,
    /// Packets from the guest that the rate limit delayed.
    pub tx_held: HeldBack,
    /// The MTU that the guest was given.
    pub mtu: AtomicU16,
    /// Whether the guest may send from any address.
    pub may_spoof: AtomicBool,
}

impl Counters {
    /// Counts a packet of `n` bytes, its virtio-net header included.
    pub(super) fn add(packets: &AtomicU64, bytes: &AtomicU64, n: usize) {
        packets.fetch_add(1, Relaxed);
        bytes.fetch_add(n.saturating_sub(VNET_HEADER) as u64, Relaxed);
    }
}
