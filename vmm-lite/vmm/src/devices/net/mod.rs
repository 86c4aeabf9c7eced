//! The network device: virtio-net over virtio-mmio, served at the doorbell.
//!
//! It sends no interrupts and needs no notifications: the doorbell says when to look, and the used
//! rings tell drivers not to notify. [`registers`] is what the driver sees, [`queues`] moves the
//! packets, [`state`] is what moves with the guest.

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

/// Bytes of late packets that are kept for a guest that takes none: what came from a peer has
/// bounds (rule R4).
const LATE_MAX: usize = 4 << 20;

/// What went through a device since it was made.
#[derive(Debug, Default)]
pub struct Counters {
    /// Packets to the guest.
    pub rx_packets: AtomicU64,
    /// Their bytes, without headers of ours.
    pub rx_bytes: AtomicU64,
    /// Packets to the guest that did not fit its buffers.
    pub rx_dropped: AtomicU64,
    /// Packets from the guest.
    pub tx_packets: AtomicU64,
    /// Their bytes.
    pub tx_bytes: AtomicU64,
    /// Packets from the guest that the host would not take.
    pub tx_dropped: AtomicU64,
    /// Packets from it that came from addresses which are not its own.
    pub tx_spoofed: AtomicU64,
    /// Packets to the guest that had to wait, as they came too fast.
    pub rx_held: HeldBack,
    /// Packets from it that had to wait.
    pub tx_held: HeldBack,
    /// The MTU that the guest was told.
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

/// Packets that reached the guest's old place and come after it; handed over by another thread.
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

    /// Adds a frame with its virtio-net header. `false` when there are too many already, or it is
    /// no frame.
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
    /// What the TAP was last told that the driver takes.
    offload: Option<u32>,
    /// The TAP's own, which a guest that comes may not exceed.
    tap_mtu: u16,
    /// What packets must come from.
    own: Option<Own>,
    /// Of what it receives and of what it sends.
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
    /// What the TAP says.
    pub fn new(tap: Tap, mac: [u8; 6]) -> Result<Self, tap::Error> {
        let (mtu, up) = tap.mtu_and_up()?;
        if !up {
            let name = tap.name();
            tracing::warn!("TAP device {name} is down; set it up with `ip link set {name} up`");
        }
        Ok(Self::with_mtu(tap, mac, mtu))
    }

    /// The same on a device that cannot be asked for its MTU, as one [over a socket](Tap::over).
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

    /// Drops and counts packets from now on that do not come from these addresses; `None`: none.
    pub fn restrict_to(&mut self, own: Option<Own>) {
        self.own = own;
        self.counters.may_spoof.store(own.is_none(), Relaxed);
    }

    /// Lets packets through no faster than this from now on, each way.
    pub fn limit(&mut self, rate: NetRate) {
        self.throttles = [rate, rate].map(Throttle::new);
    }

    /// Its counters.
    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// Where packets that come after the guest are handed over.
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

    /// Which offloads the driver takes.
    #[must_use]
    pub fn offload(&self) -> u32 {
        self.registers.offload()
    }

    /// Tells the TAP which offloads the driver takes, or is going to.
    pub fn tell_offload(&mut self, offload: u32) {
        // The call waits for all who configure networks.
        if self.offload.replace(offload) == Some(offload) {
            return;
        }
        if let Err(e) = self.tap.set_offload(offload) {
            // The guest then gets packets it could have got cheaper, and none it cannot take.
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

    /// Sends what the guest queued and may send, and gives it nothing: for a guest that has just
    /// said that it does not care for its receive buffers.
    ///
    /// # Errors
    /// A [`Violation`].
    pub fn flush(&mut self, ram: &GuestRam) -> Result<(), Violation> {
        let Self { tap, own, throttles: [_, sending], registers, buffers, counters, .. } = self;
        let Some([_, transmit]) = registers.live_queues() else { return Ok(()) };
        // A queue that never empties is one that changes while it is served, which a guest that is
        // stopped does not do.
        for _ in 0..=usize::from(registers::QUEUE_MAX) / queues::BATCH {
            if !queues::send(transmit, ram, tap, *own, sending, buffers, counters)?.more {
                return Ok(());
            }
        }
        let what = "it has more packets than room for them".into();
        Err(Violation::Queue { queue: "transmit", what })
    }

    /// What moves. The queues are settled: nothing that was taken off a ring is unfinished.
    #[must_use]
    pub fn capture(&self) -> NetState {
        self.registers.capture()
    }

    /// Goes on where another VMM was.
    ///
    /// # Errors
    /// What is wrong with the state; nothing has changed then.
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
