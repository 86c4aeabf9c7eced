//! The seam between a network device and the host's end of its wire.

use crate::devices::virtio::Parts;
use std::{fmt, io, os::fd::RawFd};

/// Size of the virtio-net header that precedes each packet on a back end.
pub const VNET_HEADER: usize = 12;

/// Packets to the guest may come without their checksum filled in.
pub const TUN_F_CSUM: u32 = 0x01;
/// TCP segments over IPv4 to the guest may be larger than the MTU.
pub const TUN_F_TSO4: u32 = 0x02;
/// TCP segments over IPv6 to the guest may be larger than the MTU.
pub const TUN_F_TSO6: u32 = 0x04;

/// Where a network device sends packets and gets them from: a [`Tap`](super::tap::Tap), or
/// something before one.
///
/// The device has nothing else to do with the wire, and does not know what becomes of a packet: a
/// back end may keep what is sent until it is released, and show to an observer what is received.
/// It is called on the vCPU thread while the guest is stopped, and must not block.
///
/// Packets that the source of a move forwards do not arrive here: see
/// [`Forwarded`](super::Forwarded).
pub trait Backend: fmt::Debug + Send {
    /// Its name, for messages.
    fn name(&self) -> &str;

    /// A descriptor to be polled: readable while packets wait to be received, and writable when
    /// packets are accepted again.
    fn fd(&self) -> RawFd;

    /// Sets the offloads that the guest accepts: a set of `TUN_F_*`.
    ///
    /// # Errors
    /// The host's error; received packets then need none of them.
    fn set_offload(&mut self, offload: u32) -> io::Result<()>;

    /// Accepts one packet with its header. `false` if it accepts none for now. The parts are only
    /// valid during the call.
    ///
    /// # Errors
    /// The host's error; the packet is lost.
    fn send(&mut self, packet: Parts<'_>) -> io::Result<bool>;

    /// Whether a packet waits to be received.
    fn has_packet(&self) -> bool;

    /// Puts the next packet with its header into `buffer`, and marks what it writes; `None` when
    /// none waits. Returns the packet's length. A packet that is longer than the buffer is lost.
    ///
    /// # Errors
    /// The host's error.
    fn receive(&mut self, buffer: Parts<'_>) -> io::Result<Option<usize>>;
}
