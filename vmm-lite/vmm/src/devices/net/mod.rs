//! The network device: virtio-net over virtio-mmio, served at the doorbell.
//!
//! It sends no interrupts and needs no notifications: the doorbell says when to look at the queues,
//! and the used rings tell drivers not to notify. [`registers`] is the driver's view, [`queues`]
//! moves the packets, [`state`] is what is captured.

mod queues;
mod registers;
mod sources;
mod state;

pub use queues::Moved;
pub use sources::Own;
pub use state::{MtuTooSmall, NetState};

use super::{
    Violation, tap,
    tap::Tap,
    throttle::{HeldBack, NetRate, Throttle},
};
use crate::memory::GuestRam;
use queues::Buffers;
use registers::Registers;
use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering::Relaxed, Ordering::SeqCst},
    },
};

/// Limit in bytes for forwarded packets that a guest has not accepted: what a peer sends is bounded
/// (rule R4).
const LATE_MAX: usize = 4 << 20;

/// Traffic of a device since it was made.
#[derive(Debug, Default)]
pub struct Counters {
    /// Packets to the guest.
    pub rx_packets: AtomicU64,
    /// Their bytes, without our headers.
    pub rx_bytes: AtomicU64,
    /// Packets to the guest that did not fit its buffers.
    pub rx_dropped: AtomicU64,
    /// Packets from the guest.
    pub tx_packets: AtomicU64,
    /// Their bytes.
    pub tx_bytes: AtomicU64,
    /// Packets from the guest that the host did not accept.
    pub tx_dropped: AtomicU64,
    /// Packets from the guest with a source address that is not its own.
    pub tx_spoofed: AtomicU64,
    /// Packets to the guest that the rate limit delayed.
    pub rx_held: HeldBack,
    /// Packets from the guest that the rate limit delayed.
    pub tx_held: HeldBack,
    /// The MTU that the guest was given.
    pub mtu: AtomicU16,
    /// Whether the guest may send from any address.
    pub may_spoof: AtomicBool,
}

impl Counters {
    fn add(packets: &AtomicU64, bytes: &AtomicU64, n: usize) {
        packets.fetch_add(1, Relaxed);
        bytes.fetch_add(n.saturating_sub(tap::VNET_HEADER) as u64, Relaxed);
    }
}

/// Packets that reached the source's TAP and were forwarded; another thread adds them.
#[derive(Debug, Default)]
pub struct Forwarded {
    frames: Mutex<Frames>,
    some: AtomicBool,
}

#[derive(Debug, Default)]
struct Frames {
    queue: VecDeque<Vec<u8>>,
    bytes: usize,
}

impl Forwarded {
    fn frames(&self) -> MutexGuard<'_, Frames> {
        self.frames.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a frame with its virtio-net header. `false` if there are too many already, or it is not
    /// a frame.
    pub fn push(&self, frame: Vec<u8>) -> bool {
        let mut frames = self.frames();
        if frames.bytes + frame.len() > LATE_MAX || frame.len() <= tap::VNET_HEADER {
            return false;
        }
        frames.bytes += frame.len();
        frames.queue.push_back(frame);
        self.some.store(true, SeqCst);
        true
    }

    fn pop(&self) -> Option<Vec<u8>> {
        if !self.any() {
            return None;
        }
        let mut frames = self.frames();
        let frame = frames.queue.pop_front();
        frames.bytes -= frame.as_ref().map_or(0, Vec::len);
        self.some.store(!frames.queue.is_empty(), SeqCst);
        frame
    }

    /// Whether there are any.
    #[must_use]
    pub fn any(&self) -> bool {
        self.some.load(SeqCst)
    }
}

/// The device of one guest.
#[derive(Debug)]
pub struct Net {
    tap: Tap,
    /// The offloads that were last set on the TAP.
    offload: Option<u32>,
    /// The TAP's own MTU, which that of an arriving guest may not exceed.
    tap_mtu: u16,
    /// The source addresses that packets of the guest must have.
    own: Option<Own>,
    /// Rate limits of what it receives and what it sends.
    throttles: [Throttle; 2],
    registers: Registers,
    buffers: Buffers,
    counters: Arc<Counters>,
    forwarded: Arc<Forwarded>,
}

impl Net {
    /// A device with the address `mac` on `tap`, as after a reset.
    ///
    /// # Errors
    /// The TAP's error.
    pub fn new(tap: Tap, mac: [u8; 6]) -> Result<Self, tap::Error> {
        let (mtu, up) = tap.mtu_and_up()?;
        if !up {
            let name = tap.name();
            tracing::warn!("TAP device {name} is down; set it up with `ip link set {name} up`");
        }
        Ok(Self::with_mtu(tap, mac, mtu))
    }

    /// The same on a device without an MTU to query, such as one [over a socket](Tap::over).
    #[must_use]
    pub fn with_mtu(tap: Tap, mac: [u8; 6], mtu: u16) -> Self {
        let (counters, forwarded): (Arc<Counters>, _) = Default::default();
        counters.mtu.store(mtu, Relaxed);
        counters.may_spoof.store(true, Relaxed);
        let registers = Registers::new(mac, mtu);
        let (buffers, throttles) = (Buffers::default(), Default::default());
        Self {
            tap,
            offload: None,
            tap_mtu: mtu,
            own: None,
            throttles,
            registers,
            buffers,
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

    /// The TAP device.
    #[must_use]
    pub fn tap(&self) -> &Tap {
        &self.tap
    }

    /// The driver reads a register.
    ///
    /// # Errors
    /// A [`Violation`].
    pub fn read(&self, offset: u64, data: &mut [u8]) -> Result<(), Violation> {
        self.registers.read(offset, data)
    }

    /// The driver writes a register.
    ///
    /// # Errors
    /// A [`Violation`].
    pub fn write(&mut self, offset: u64, data: &[u8], ram: &GuestRam) -> Result<(), Violation> {
        if self.registers.write(offset, data, ram)? {
            self.tell_offload(self.registers.offload());
        }
        Ok(())
    }

    /// The offloads that the driver accepts.
    #[must_use]
    pub fn offload(&self) -> u32 {
        self.registers.offload()
    }

    /// Sets the offloads on the TAP that the driver accepts, or will accept.
    pub fn tell_offload(&mut self, offload: u32) {
        // The call waits for all processes that configure networks.
        if self.offload.replace(offload) == Some(offload) {
            return;
        }
        if let Err(e) = self.tap.set_offload(offload) {
            // The guest then gets packets at a higher cost, and none that it cannot accept.
            tracing::warn!("offloads stay off: {e}");
        }
    }

    /// Sends what the guest queued, and fills its buffers with what has arrived.
    ///
    /// # Errors
    /// A [`Violation`].
    pub fn pass(&mut self, ram: &GuestRam) -> Result<Moved, Violation> {
        let Self { tap, own, throttles, registers, buffers, counters, forwarded, .. } = self;
        let [receiving, sending] = throttles;
        let room = registers::frame_max(registers.offload(), registers.mtu());
        let Some([receive, transmit]) = registers.live_queues() else {
            return Ok(Moved::default());
        };
        let sent = queues::send(transmit, ram, tap, *own, sending, buffers, counters)?;
        let received =
            queues::receive(receive, ram, tap, receiving, buffers, counters, forwarded, room)?;
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
        let Self { tap, own, throttles: [_, sending], registers, buffers, counters, .. } = self;
        let Some([_, transmit]) = registers.live_queues() else { return Ok(()) };
        // Only a queue that changes while it is served never empties, and a stopped guest does not
        // change it.
        for _ in 0..=usize::from(registers::QUEUE_MAX) / queues::BATCH {
            if !queues::send(transmit, ram, tap, *own, sending, buffers, counters)?.more {
                return Ok(());
            }
        }
        let what = "it has more packets than room for them".into();
        Err(Violation::Queue { queue: "transmit", what })
    }

    /// The state to capture. The queues are settled: nothing that was taken off a ring is
    /// unfinished.
    #[must_use]
    pub fn capture(&self) -> NetState {
        self.registers.capture()
    }

    /// Continues from a captured state.
    ///
    /// # Errors
    /// The state's error; nothing has changed then.
    pub fn apply(&mut self, state: &NetState, ram: &GuestRam) -> Result<(), state::Error> {
        if state.mtu > self.tap_mtu {
            let device = self.tap.name().to_owned();
            return Err(MtuTooSmall { guest: state.mtu, tap: self.tap_mtu, device }.into());
        }
        self.registers.apply(state, ram)?;
        self.counters.mtu.store(state.mtu, Relaxed);
        self.tell_offload(self.registers.offload());
        Ok(())
    }
}

pub use state::Error as StateError;
