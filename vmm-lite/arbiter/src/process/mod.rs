//! The process that talks to the arbiter, and its client.
//!
//! A process that runs a guest is confined: it opens no connection and no file. So another process
//! talks to the arbiter, and the VM's process has one end of a socket to it. That process ends when
//! the other end is closed.
//!
//! - `client`: the VM's end
//! - `serve`: the other process
//! - `protocol`: the messages between them
//! - `socket`: the socket between them

mod client;
mod protocol;
mod serve;
mod socket;

pub use client::ArbiterClient;
pub use protocol::{Ask, Reply, RequestId};
pub use serve::serve;
pub use socket::pair;

use crate::arb::Arb;
use std::{io, thread};

/// A client of an arbiter that a thread of this process talks to: for programs that are not
/// confined. The thread ends when the client is dropped.
///
/// # Errors
/// The host's.
pub fn in_thread(arb: Arb) -> io::Result<ArbiterClient> {
    let (ours, theirs) = pair()?;
    thread::Builder::new().name("arbiter".into()).spawn(move || {
        if let Err(e) = serve(theirs, &arb) {
            tracing::warn!("the thread for the arbiter {arb} has ended: {e}");
        }
    })?;
    Ok(ArbiterClient::new(ours))
}
