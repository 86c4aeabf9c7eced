//! Hands on the packets that reach the old place (rule R5).

use crate::{
    migration::connection::{Connection, LinkError},
    vm::ForwardedPackets,
};
use migrate::wire::Message;
use std::{
    os::fd::RawFd,
    time::{Duration, Instant},
};

/// The network has learnt where the guest is when nothing came for that long …
const QUIET: Duration = Duration::from_millis(50);
/// … and in any case after that long.
const ENOUGH: Duration = Duration::from_millis(500);

/// See the module.
#[derive(Debug)]
pub struct Forwarder {
    packets: ForwardedPackets,
    count: u64,
    quiet_at: Instant,
    enough_at: Instant,
}

impl Forwarder {
    /// From now on.
    pub fn new(packets: ForwardedPackets) -> Self {
        let now = Instant::now();
        Self { packets, count: 0, quiet_at: now + QUIET, enough_at: now + ENOUGH }
    }

    /// Readable when packets wait; negative where there is no network.
    pub fn fd(&self) -> RawFd {
        self.packets.fd()
    }

    /// When to look again at the latest.
    pub fn due(&self) -> Instant {
        self.quiet_at.min(self.enough_at)
    }

    /// Sends those that wait. `false`: that was the end of them, and the destination knows.
    ///
    /// # Errors
    /// [`LinkError`]: packets are lost, as packets may be.
    pub fn hand_on(&mut self, connection: &mut Connection) -> Result<bool, LinkError> {
        while Instant::now() < self.enough_at {
            let Some(frame) = self.packets.read()? else { break };
            connection.send(&Message::Forwarded(frame.to_vec()))?;
            self.count += 1;
            self.quiet_at = Instant::now() + QUIET;
        }
        if Instant::now() < self.due() {
            return Ok(true);
        }
        connection.send(&Message::ForwardedEnd)?;
        tracing::info!("handed on {} late packets", self.count);
        Ok(false)
    }
}
