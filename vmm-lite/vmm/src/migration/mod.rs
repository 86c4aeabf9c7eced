//! Moves a VM between hosts: the drivers of the `migrate` crate's state machines, with sockets,
//! guest memory and clocks.
//!
//! - [`source`]: moves a VM away, on request of `vmm-lite migrate`
//! - [`destination`]: receives one, for `vmm-lite receive`
//! - [`connection`]: messages over TCP, encrypted or not; [`tls`]: between hosts that trust each
//!   other's keys
//! - [`credentials`]: this host's credentials in a move
//! - [`connector`]: connects for a VM in a jail
//! - [`listener`]: admission control
//! - `handover`: the VM's state, and what is sent with it
//! - `switch_hint`: what can be prepared before the guest is stopped
//! - [`progress`]: events of a move in progress
//! - `called_off`: texts for cancelled moves
//! - [`address`]: destinations, such as `tcp://10.9.0.2:7000`

pub mod address;
mod called_off;
pub mod connection;
pub mod connector;
pub mod credentials;
pub mod destination;
pub mod handover;
pub(crate) mod inbox;
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

/// Why a move failed.
#[derive(thiserror::Error, Debug)]
pub enum Error {
    /// An invalid address.
    #[error(transparent)]
    Address(#[from] address::AddressError),
    /// The connection failed.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The state machine's error.
    #[error(transparent)]
    Failed(#[from] migrate::source::Failure),
    /// The VM's error.
    #[error(transparent)]
    Vm(#[from] VmError),
    /// The host refused an event descriptor.
    #[error("cannot wake the thread of the move")]
    Event(#[source] std::io::Error),
    /// The host provided no random numbers for the move's id.
    #[error("cannot draw random numbers for the move")]
    Random(#[source] std::io::Error),
    /// Neither a move nor a question.
    #[error("this begins with neither a move nor a question")]
    Nonsense,
    /// A repeated move.
    #[error("this move was begun before: its first message was repeated")]
    Replayed,
    /// The host's identity is invalid.
    #[error(transparent)]
    Identity(#[from] crate::identity::Error),
    /// Memory of the VM is missing, and does not arrive in time.
    #[error(transparent)]
    Incomplete(#[from] crate::vm::Incomplete),
}

/// Sixteen random bytes.
fn draw() -> Result<[u8; 16], Error> {
    crate::host::random::bytes().map_err(Error::Random)
}

/// How long a peer may be silent: the usual timeout, unless a test sets a shorter one.
fn timeout(usual: Duration) -> Duration {
    #[cfg(debug_assertions)]
    let usual = crate::fail_point::timeout(usual);
    usual
}
