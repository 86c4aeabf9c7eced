//! The stack, in a test bed of two hosts and a wire.

mod connections;
mod datagrams;
mod loopback;
mod many;
mod nic;
mod openings;
mod readdress;
pub(super) mod wire;
