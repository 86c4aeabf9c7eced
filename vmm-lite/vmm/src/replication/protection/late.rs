//! Packets that reach a standby's host.
//!
//! After a swap the network may send some to the host that ran the VM before: they are forwarded
//! (rule R5). At any other time the guest is elsewhere, and what a bridge floods is discarded, but
//! only when the primary has been heard since: what comes after its last word may have found no
//! link to its host any more, and is for the member that takes over.

use super::set::Core;
use crate::{migration::connection::LinkError, vm::ForwardedPackets};
use migrate::replication::wire::Message;
use std::{
    os::fd::RawFd,
    time::{Duration, Instant},
};

/// How long after a swap packets are forwarded.
pub(super) const FORWARDED: Duration = Duration::from_millis(500);

/// See the module.
#[derive(Debug)]
pub(super) struct Late {
    packets: ForwardedPackets,
    forwards_until: Option<Instant>,
    /// A message of the primary has come since the packets were last read.
    heard: bool,
}

impl Late {
    /// Of a standby; with `forwards` of one that was the primary until now.
    pub fn new(packets: ForwardedPackets, forwards: bool) -> Self {
        Self { packets, forwards_until: forwards.then(|| Instant::now() + FORWARDED), heard: false }
    }

    /// To be polled, while packets are forwarded.
    pub fn fd(&self) -> Option<RawFd> {
        self.forwards_until.map(|_| self.packets.fd())
    }

    /// The primary lives.
    pub fn heard(&mut self) {
        self.heard = true;
    }

    /// The next packet that is to be forwarded; the others are discarded.
    fn next(&mut self) -> Option<Vec<u8>> {
        self.forwards_until.take_if(|until| *until <= Instant::now());
        let heard = std::mem::take(&mut self.heard);
        if self.forwards_until.is_none() && !heard {
            return None;
        }
        loop {
            // A device that cannot be read has lost its packets, as a wire does.
            let packet = self.packets.read().ok().flatten()?;
            if self.forwards_until.is_some() {
                return Some(packet.to_vec());
            }
        }
    }
}

impl Core {
    /// Deals with the packets that wait.
    pub fn forward(&mut self) -> Result<(), LinkError> {
        let (Some(late), Some(peer)) = (&mut self.late, self.peers.values_mut().next()) else {
            return Ok(());
        };
        while let Some(packet) = late.next() {
            peer.channel.queue(&Message::Forwarded(packet))?;
        }
        peer.channel.flush()
    }
}
