//! The network: TCP and UDP over IPv4, by a virtio device or within the machine.
//!
//! - [`virtio`]: the driver of the network device
//! - [`stack`] with [`calls`]: links, sockets, and what a program does with them; pure, no clock, no waiting
//!
//! IPv6 is not supported: such sockets are refused.

pub mod buffers;
pub mod calls;
pub mod device;
pub mod error;
mod link;
pub mod loopback;
pub mod options;
pub mod peek;
pub mod ports;
mod slab;
pub mod stack;
mod tcp;
mod timers;
mod udp;
pub mod virtio;

pub use error::Error;
pub use link::LinkId;
pub use options::{Options, Ready};

/// Number of a socket, until it is closed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SocketId(pub u32);

/// The scheduler's call: moves packets; when to be called again.
#[cfg(target_os = "hermit")]
#[must_use]
pub const fn poll(_now_ns: u64) -> Option<u64> {
    None
}

#[cfg(test)]
mod tests;
