//! Moving a VM between hosts: the `migrate` crate's machines, driven with sockets, guest memory and
//! clocks.
//!
//! - [`source`]: moves a VM away, at the request of `vmm-lite migrate`
//! - [`destination`]: takes one in, for `vmm-lite receive`
//! - [`connection`]: messages over TCP, encrypted or not; [`tls`]: between hosts that trust each
//!   other's keys
//! - [`credentials`]: who this host is in a move
//! - [`connector`]: connects for a VM in a jail
//! - [`listener`]: who may come in, and how many
//! - `handover`: the VM's state, and what goes with it
//! - `switch_hint`: what can be got ready before the guest stands
//! - [`progress`]: what is told of a move that is under way
//! - `called_off`: what is said of a move that was
//! - [`address`](self::address): where to, such as `tcp://10.9.0.2:7000`

pub mod address;
mod called_off;
pub mod connection;
pub mod connector;
pub mod credentials;
pub mod destination;
mod handover;
mod inbox;
pub mod listener;
pub mod offered;
pub mod progress;
mod reach;
pub mod source;
mod switch_hint;
pub mod tls;

use crate::vm::Error as VmError;
use connection::LinkError;
use std::time::Duration;

/// Why a move was not made.
#[derive(thiserror::Error, Debug)]
pub enum Error {
    /// An address that is none.
    #[error(transparent)]
    Address(#[from] address::AddressError),
    /// The link.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// What the machine says.
    #[error(transparent)]
    Failed(#[from] migrate::source::Failure),
    /// The VM.
    #[error(transparent)]
    Vm(#[from] VmError),
    /// No event descriptor.
    #[error("cannot wake the thread of the move")]
    Event(#[source] std::io::Error),
    /// No random numbers for the move's name.
    #[error("cannot draw random numbers for the move")]
    Random(#[source] std::io::Error),
    /// Neither a move nor a question.
    #[error("this begins with neither a move nor a question")]
    Nonsense,
    /// A move that was begun before.
    #[error("this move was begun before: somebody repeats what was said then")]
    Replayed,
    /// The host's identity.
    #[error(transparent)]
    Identity(#[from] crate::identity::Error),
    /// Memory of the VM is not here, and does not come in time.
    #[error(transparent)]
    Incomplete(#[from] crate::vm::Incomplete),
}

/// Sixteen random bytes.
fn draw() -> Result<[u8; 16], Error> {
    crate::host::random::bytes().map_err(Error::Random)
}

/// How long a peer may be silent: as usual, unless a test has less time.
fn timeout(usual: Duration) -> Duration {
    #[cfg(debug_assertions)]
    let usual = crate::fail_point::timeout(usual);
    usual
}
