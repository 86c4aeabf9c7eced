//! Accepting connections with a timeout.

use crate::{
    error::{Doing, Result},
    vmm::TIMEOUT,
};
use nix::sys::{
    socket::{setsockopt, sockopt::ReceiveTimeout},
    time::TimeVal,
};
use std::net::{TcpListener, TcpStream};

/// Accepts the next connection. Its reads have the same timeout: [`TIMEOUT`].
///
/// # Errors
/// If none arrives in that time: the test fails and does not hang.
pub fn accept(listener: &TcpListener) -> Result<TcpStream> {
    // The limit on reading applies to accept as well: socket(7).
    let limit = TimeVal::new(TIMEOUT.as_secs() as i64, 0);
    setsockopt(listener, ReceiveTimeout, &limit).doing("limit how long a connection is awaited")?;
    Ok(listener.accept().doing("await a connection")?.0)
}
