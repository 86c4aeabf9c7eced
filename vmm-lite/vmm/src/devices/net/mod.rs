//! The network device: virtio-net, served at the doorbell.
//!
//! - [`config`]: the features offered, the configuration space, offloads
//! - [`packets`]: what is sent and received
//! - [`backend`]: the seam to the wire, behind which packets can be held back and observed
//! - [`sources`]: which packets of the guest are dropped because of their source address
//! - [`forwarded`]: packets that the source of a move forwards
//! - [`state`]: what is captured
//! - [`tap`], [`link`], [`arp`]: the host's end, and how the network learns where the guest is

pub mod arp;
pub mod backend;
mod config;
mod counters;
mod forwarded;
pub mod link;
mod packets;
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
    throttle::{NetRate, Throttle},
    virtio::{self, Buffers, Change, Transport},
};
use crate::memory::GuestRam;
use backend::Backend;
use config::{MODEL, TRANSMIT};
use std::{
    os::fd::RawFd,
    sync::{Arc, atomic::Ordering::Relaxed},
};

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
}

impl Net {
    /// A device with the address `mac` on `backend`, as after a reset. The packets there are as long
    /// as `mtu` permits.
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
        }
    }

    /// From now on drops and counts the guest's packets with other source addresses; `None` drops
    /// none.
    pub fn restrict_to(&mut self, own: Option<Own>) {
        self.own = own;
        self.counters.may_spoof.store(own.is_none(), Relaxed);
    }

    /// Limits the rate of packets from now on, each direction by itself.
    pub fn limit(&mut self, rate: NetRate) {
        self.throttles = [rate, rate].map(Throttle::new);
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

    /// The descriptor of its back end, to be polled.
    #[must_use]
    pub fn fd(&self) -> RawFd {
        self.backend.fd()
    }

    /// The driver reads a register.
    ///
    /// # Errors
    /// A [`Violation`].
    pub fn read(&self, offset: u64, data: &mut [u8]) -> Result<(), Violation> {
        self.transport.read(offset, data, &config::space(self.mac, self.mtu))
    }

    /// The driver writes a register.
    ///
    /// # Errors
    /// A [`Violation`].
    pub fn write(&mut self, offset: u64, data: &[u8], ram: &GuestRam) -> Result<(), Violation> {
        match self.transport.write(offset, data, ram)? {
            Change::None => {}
            Change::Status => self.tell_offload(self.offload()),
            Change::Reset => self.reset(),
        }
        Ok(())
    }

    /// Puts it into the state that it had when it was made, but for the guest's address and MTU.
    pub fn reset(&mut self) {
        self.transport.reset();
        self.tell_offload(self.offload());
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
    pub fn pass(&mut self, ram: &GuestRam) -> Result<Moved, Violation> {
        let room = config::frame_max(self.offload(), self.mtu);
        let Self { backend, own, throttles, transport, buffers, counters, forwarded, .. } = self;
        let [receiving, sending] = throttles;
        let Some([receive, transmit]) = transport.live_queues() else {
            return Ok(Moved::default());
        };
        let sent =
            packets::send(transmit, ram, backend.as_mut(), *own, sending, buffers, counters)?;
        let received = packets::receive(
            receive,
            ram,
            backend.as_mut(),
            receiving,
            buffers,
            counters,
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

    /// Sends what the guest queued as its rate permits, and delivers nothing: for a guest that has
    /// just hinted its receive buffers as not needed.
    ///
    /// # Errors
    /// A [`Violation`].
    pub fn flush(&mut self, ram: &GuestRam) -> Result<(), Violation> {
        let Self { backend, own, throttles: [_, sending], transport, buffers, counters, .. } = self;
        let Some([_, transmit]) = transport.live_queues() else { return Ok(()) };
        // Only a queue that changes while it is served never empties, and a stopped guest does not
        // change it.
        for _ in 0..=usize::from(virtio::QUEUE_MAX) / packets::BATCH {
            if !packets::send(transmit, ram, backend.as_mut(), *own, sending, buffers, counters)?
                .more
            {
                return Ok(());
            }
        }
        Err(MODEL.broken(TRANSMIT, "it has more packets than room for them".into()))
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
    pub fn apply(&mut self, state: &NetState, ram: &GuestRam) -> Result<(), StateError> {
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
