//! Connections that a test waits for.

use crate::{
    error::{Doing, Result},
    vmm::TIMEOUT,
};
use nix::sys::{
    socket::{setsockopt, sockopt::ReceiveTimeout},
    time::TimeVal,
};
use std::net::{TcpListener, TcpStream};

/// Accepts the next connection. It has the time limit that this has: [`TIMEOUT`] for a read.
///
/// # Errors
/// When none comes in that time: the test is to fail rather than to hang.
pub fn accept(listener: &TcpListener) -> Result<TcpStream> {
    // Where the limit on reading ends an accept as well: socket(7).
    let limit = TimeVal::new(TIMEOUT.as_secs() as i64, 0);
    setsockopt(listener, ReceiveTimeout, &limit).doing("limit how long a connection is awaited")?;
    Ok(listener.accept().doing("await a connection")?.0)
}
