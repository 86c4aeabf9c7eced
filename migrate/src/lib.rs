//! The migration protocol of vmm-lite, without a socket, a VM or a clock.
//!
//! Events and the time go in, actions come out. [`source::Source`] and [`destination::Destination`]
//! are the two machines; whoever drives them does what the [actions](source::Action) say and tells
//! them what came of it. `PROTOCOL.md` beside this crate has the sequence, the states and the
//! bytes.
//!
//! - [`wire`]: how messages are framed, checked, and laid out
//! - [`offer`]: what the source says of the VM before anything of it is sent, and why a destination
//!   may refuse
//! - [`source`], [`destination`]: the two machines
//! - [`rounds`]: which pages are sent when
//! - [`predict`]: what the switch is going to cost
//! - [`pages`]: sets of pages
//! - [`report`]: what a move cost, by phase
//! - [`brownout`]: how long the guest is slower after it
//! - [`snapshot`]: a VM at rest: the file format
#![forbid(unsafe_code)]

pub mod brownout;
pub mod destination;
pub mod offer;
pub mod pages;
pub mod predict;
pub mod report;
pub mod rounds;
pub mod snapshot;
pub mod source;
pub mod wire;

#[cfg(test)]
mod sim;

/// Version of the protocol. Peers with another are refused.
pub const PROTOCOL_VERSION: u16 = 3;

/// Size of a page, in bytes.
pub const PAGE: usize = 4096;

/// Names one attempt to move a VM: 128 random bits that the source draws.
pub type MoveId = [u8; 16];

/// Names one receiving process: 128 random bits that it draws when it starts. Only the process that
/// took part in a move can say what became of it.
pub type ReceiverId = [u8; 16];

/// Whom a connection was made by, as its transport has proved it; `None` where it proves nothing
/// (plaintext).
pub type Peer = Option<[u8; 32]>;
