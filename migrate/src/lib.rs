//! The migration protocol of vmm-lite, without a socket, a VM or a clock.
//!
//! Events and the time go in, actions come out. [`source::Source`] and [`destination::Destination`]
//! are the two state machines. Their driver carries out the [actions](source::Action) and reports
//! the results to them as events. `PROTOCOL.md` beside this crate has the sequence, the states and
//! the bytes.
//!
//! - [`wire`]: how messages are framed, checked, and laid out
//! - [`offer`]: what the source tells of the VM before it sends any of it, and why a destination
//!   may refuse
//! - [`source`], [`destination`]: the two state machines
//! - [`precopy`]: which pages are copied when, when rounds end, and what the switch will cost
//! - [`page_set`]: sets of pages
//! - [`report`]: what a move cost, by phase
//! - [`brownout`]: how long the guest is slower after it
//! - [`replication`]: a VM with standbys: output commit, takeover, swap
//! - [`input_log`]: what a guest was given, for running it again
//! - [`snapshot`]: the file format of a saved VM
#![forbid(unsafe_code)]

pub mod brownout;
pub mod destination;
pub mod input_log;
pub mod offer;
pub mod page_set;
pub mod precopy;
pub mod replication;
pub mod report;
pub mod snapshot;
pub mod source;
pub mod wire;

#[cfg(test)]
mod sim;

/// Version of the protocol. Peers with another are refused.
pub const PROTOCOL_VERSION: u16 = 3;

/// Size of a page, in bytes.
pub const PAGE: usize = 4096;

/// Identifies one attempt to move a VM: 128 random bits that the source draws.
pub type MoveId = [u8; 16];

/// Identifies one receiving process: 128 random bits that it draws when it starts. Only the process
/// that took part in a move knows its outcome.
pub type ReceiverId = [u8; 16];

/// The peer of a connection, as the transport has authenticated it; `None` where it authenticates
/// nobody (plaintext).
pub type Peer = Option<[u8; 32]>;
