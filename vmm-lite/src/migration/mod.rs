//! Moving a VM between hosts: the `migrate` crate's machines, driven with sockets, guest memory and clocks.
//!
//! - [`source`]: moves a VM away, at the request of `vmm-lite migrate`
//! - [`destination`]: takes one in, for `vmm-lite receive`
//! - [`connection`]: messages over TCP
//! - [`address`](self::address): where to, such as `tcp://10.9.0.2:7000`

pub mod address;
pub mod connection;
pub mod destination;
mod late;
mod send_pages;
pub mod source;

use crate::{
    control::Reply,
    vm::{Error as VmError, Vm},
};
use connection::LinkError;
use serde_json::{Map, Value};
use std::time::Duration;

/// How long a peer may take to take a connection.
const CONNECT: Duration = Duration::from_secs(5);

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
    /// No random numbers for the move's name.
    #[error("cannot draw random numbers for the move")]
    Random(#[source] std::io::Error),
    /// A move is under way.
    #[error("the VM is being moved already")]
    Busy,
    /// The VM is not running.
    #[error("the VM is paused; resume it before it moves")]
    Paused,
}

/// Serves the request `migrate` of the control socket: moves `vm` away, and answers when that is done or has failed.
pub fn request(vm: &Vm, request: &Map<String, Value>, reply: &mut Reply) {
    let to = request.get("to").and_then(Value::as_str).unwrap_or_default();
    if let Err(e) = source::migrate(vm, to, reply) {
        reply.answer(&Err(Box::new(e)));
    }
}

/// Sixteen random bytes.
fn draw() -> Result<[u8; 16], Error> {
    let mut id = [0; 16];
    // SAFETY: the buffer has as many bytes as are asked for.
    let n = unsafe { libc::getrandom(id.as_mut_ptr().cast(), id.len(), 0) };
    if n == id.len() as isize {
        Ok(id)
    } else {
        Err(Error::Random(std::io::Error::last_os_error()))
    }
}
