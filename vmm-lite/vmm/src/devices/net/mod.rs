//! The network device: virtio-net, served at the doorbell.
//!
//! - `device`: what any device on the bus does
//! - `config`: the features offered, the configuration space, offloads
//! - `packets`: what is sent and received
//! - `backend`: the seam to the wire, behind which packets can be held back and observed
//! - `sources`: which packets of the guest are dropped because of their source address
//! - `forwarded`: packets that the source of a move forwards
//! - `replay`: what the device of a recorded guest did, repeated
//! - `state`: what is captured
//! - `tap`, `link`, `arp`: the host's end, and how the network learns where the guest is

pub mod arp;
pub mod backend;
mod config;
mod counters;
mod device;
mod forwarded;
pub mod link;
mod packets;
mod replay;
mod sources;
mod state;
pub mod tap;
#[cfg(test)]
mod tests;

pub use counters::Counters;
pub use forwarded::Forwarded;
pub use packets::Moved;
pub use sources::Own;
pub use state::{MtuTooSmall, NetState, StateError};

use super::{
    Violation,
    inputs::Recording,
    throttle::Throttle,
    virtio::{Buffers, Transport},
};
use crate::memory::Writable;
use backend::Backend;
use config::MODEL;
use std::sync::{Arc, atomic::Ordering::Relaxed};

/// The device of one guest.
#[derive(Debug)]
pub struct Net {
    backend: Box<dyn Backend>,
    /// The offloads that were last set on the back end.
    offload: Option<u32>,
    /// The back end's own MTU, which that of an arriving guest may not exceed.
    backend_mtu: u16,
    /// The source addresses that packets of the guest must have.
    own: Option<Own>,
    /// Rate limits of what it receives and what it sends.
    throttles: [Throttle; 2],
    mac: [u8; 6],
    mtu: u16,
    transport: Transport<2>,
    buffers: Buffers,
    counters: Arc<Counters>,
    forwarded: Arc<Forwarded>,
    recording: Recording,
}

impl Net {
    /// A device with the address `mac` on `backend`, as after a reset. The packets there are as
    /// long as `mtu` permits.
    #[must_use]
    pub fn new(backend: impl Backend + 'static, mac: [u8; 6], mtu: u16) -> Self {
        let (counters, forwarded): (Arc<Counters>, _) = Default::default();
        counters.mtu.store(mtu, Relaxed);
        counters.may_spoof.store(true, Relaxed);
        Self {
            backend: Box::new(backend),
            offload: None,
            backend_mtu: mtu,
            own: None,
            throttles: Default::default(),
            mac,
            mtu,
            transport: Transport::new(&MODEL),
            buffers: Buffers::default(),
            counters,
            forwarded,
            recording: Recording::default(),
        }
    }

    /// From now on uses this back end in place of the one before.
    pub fn replace_backend(&mut self, backend: impl Backend + 'static) {
        self.backend = Box::new(backend);
        if let Some(offload) = self.offload.take() {
            self.tell_offload(offload);
        }
    }

    /// From now on drops and counts the guest's packets with other source addresses; `None` drops
    /// none.
    pub fn restrict_to(&mut self, own: Option<Own>) {
        self.own = own;
        self.counters.may_spoof.store(own.is_none(), Relaxed);
    }

    /// Its counters.
    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// Where another thread adds forwarded packets.
    #[must_use]
    pub fn forwarded(&self) -> Arc<Forwarded> {
        Arc::clone(&self.forwarded)
    }

    /// The offloads that the driver accepts.
    #[must_use]
    pub fn offload(&self) -> u32 {
        config::offload(&self.transport)
    }

    /// Sets the offloads on the back end that the driver accepts, or will accept.
    pub fn tell_offload(&mut self, offload: u32) {
        // The call waits for all processes that configure networks.
        if self.offload.replace(offload) == Some(offload) {
            return;
        }
        if let Err(e) = self.backend.set_offload(offload) {
            // The guest then gets packets at a higher cost, and none that it cannot accept.
            tracing::warn!("offloads stay off: {e}");
        }
    }

    /// Sends what the guest queued, and fills its buffers with what has arrived.
    ///
    /// # Errors
    /// A [`Violation`].
    pub fn pass(&mut self, ram: Writable<'_>) -> Result<Moved, Violation> {
        let room = config::frame_max(self.offload(), self.mtu);
        let Self {
            backend,
            own,
            throttles,
            transport,
            buffers,
            counters,
            forwarded,
            recording,
            ..
        } = self;
        let [receiving, sending] = throttles;
        let Some([receive, transmit]) = transport.live_queues() else {
            return Ok(Moved::default());
        };
        let sent = packets::send(
            transmit,
            ram,
            backend.as_mut(),
            *own,
            sending,
            buffers,
            counters,
            recording,
        )?;
        let received = packets::receive(
            receive,
            ram,
            backend.as_mut(),
            receiving,
            buffers,
            counters,
            recording,
            forwarded,
            room,
        )?;
        Ok(Moved {
            sent: sent.sent,
            blocked: sent.blocked,
            send_wait: sent.send_wait,
            more: sent.more || received.more,
            ..received
        })
    }

    /// The state to capture.
    #[must_use]
    pub fn capture(&self) -> NetState {
        NetState { mac: self.mac, mtu: self.mtu, transport: self.transport.capture() }
    }

    /// Continues from a captured state.
    ///
    /// # Errors
    /// [`StateError`]; nothing has changed then.
    pub fn apply(&mut self, state: &NetState, ram: Writable<'_>) -> Result<(), StateError> {
        if state.mtu > self.backend_mtu {
            let device = self.backend.name().to_owned();
            return Err(MtuTooSmall { guest: state.mtu, tap: self.backend_mtu, device }.into());
        }
        self.transport.apply(&state.transport, ram)?;
        (self.mac, self.mtu) = (state.mac, state.mtu);
        self.counters.mtu.store(state.mtu, Relaxed);
        self.tell_offload(self.offload());
        Ok(())
    }
}
