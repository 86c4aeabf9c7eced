//! The stack, in a world of two machines and a wire.

mod connections;
mod datagrams;
mod loopback;
mod many;
mod nic;
mod openings;
mod readdress;
pub(super) mod wire;
