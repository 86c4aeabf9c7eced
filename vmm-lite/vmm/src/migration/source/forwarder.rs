//! Forwards the packets that reach the source (rule R5).

use crate::{
    migration::connection::{Connection, LinkError},
    vm::ForwardedPackets,
};
use migrate::wire::Message;
use std::{
    os::fd::RawFd,
    time::{Duration, Instant},
};

/// The network has learned the guest's location when nothing has arrived for this long …
const QUIET: Duration = Duration::from_millis(50);
/// … and in any case after this long.
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
    /// Starts now.
    pub fn new(packets: ForwardedPackets) -> Self {
        let now = Instant::now();
        Self { packets, count: 0, quiet_at: now + QUIET, enough_at: now + ENOUGH }
    }

    /// Readable when packets wait; negative where there is no network.
    pub fn fd(&self) -> RawFd {
        self.packets.fd()
    }

    /// When to check again at the latest.
    pub fn due(&self) -> Instant {
        self.quiet_at.min(self.enough_at)
    }

    /// Sends the waiting packets. `false`: forwarding has ended, and the destination knows.
    ///
    /// # Errors
    /// [`LinkError`]: packets are lost, which the network permits.
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
        tracing::info!("forwarded {} packets", self.count);
        Ok(false)
    }
}
