//! The network: TCP and UDP over IPv4, by a virtio device or within the guest.
//!
//! - [`stack`] with [`calls`]: links, sockets, and what a program does with them; pure, no clock,
//!   no waiting
//! - [`dns`]: questions to name servers, and their answers
//!
//! IPv6 is not supported: such sockets are refused.

#[cfg(target_os = "hermit")]
mod awaited;
pub mod buffers;
pub mod calls;
mod connection_state;
pub mod dns;
pub mod error;
#[cfg(target_os = "hermit")]
mod global;
mod lingering;
mod link;
pub mod loopback;
mod opener;
pub mod options;
mod packet_counter;
pub mod peek;
pub mod ports;
mod readdress;
mod sequence;
mod slab;
pub mod stack;
mod tcp;
mod timers;
mod tx_scheduler;
mod udp;

#[cfg(target_os = "hermit")]
pub use awaited::AwaitsNetwork;
pub use error::Error;
#[cfg(target_os = "hermit")]
pub use global::*;
pub use link::LinkId;
pub use options::Options;

use crate::sched::readiness::Ready;

/// Number of a socket, until it is closed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SocketId(pub u32);

#[cfg(test)]
mod tests;
