//! Replication of a VM by its inputs: a VM whose inputs are kept can be run again, as it was at any
//! moment, and goes on where another copy of it ended.
//!
//! - [`journal`]: the inputs on disk; a VM that goes on after a power cut, or is replayed
//! - [`base`]: a VM as it is at one instant, which a log begins with
//! - [`debugger`]: gdb for a VM that is replayed, which also runs backwards
//! - [`protection`]: a VM that other hosts take over when this one dies
//! - [`pcap`]: the packets of a VM that is replayed, as a file for packet analyzers

pub mod base;
pub mod debugger;
pub mod journal;
pub mod pcap;
pub mod protection;
