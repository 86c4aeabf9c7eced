//! The input log: everything that a guest was given, and at which of its exits. A guest is a
//! deterministic function of its state and this log (rule R8).
//!
//! The log is a sequence of [records](Record), numbered by their position from 1. An [`Exit`] says
//! what the guest did since the last one: why it left, and the samples that it took from the CPU on
//! the way. The [`Inputs`] that may follow it are what the VMM then gave the guest: an *input
//! point*. After any record, the guest that has executed the log so far is at a consistent point
//! and may go on by itself.
//!
//! - [`record`]: the records
//! - [`codec`]: their bytes

pub mod codec;
pub mod record;

pub use codec::{DecodeError, decode, encode};
pub use record::{
    Check, Clock, Console, Device, Exit, Inputs, News, Packet, Quiesce, Reason, Record,
};
