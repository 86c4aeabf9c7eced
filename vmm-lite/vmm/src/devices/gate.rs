//! Output of a guest that may leave only when its log is safe (rule R3).
//!
//! A packet depends on everything that the guest was given before it was sent: on the record of the
//! exit at which it was sent, and on all before that. Another thread opens the gate up to a
//! position once the log is safe up to there.

use super::{
    net::{backend::Backend, tap::Tap},
    virtio::Parts,
};
use std::{
    collections::VecDeque,
    fmt, io,
    os::fd::RawFd,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
};

/// How much output may wait before the guest has to. Its buffers hold less.
const BYTES_MAX: usize = 32 << 20;

/// The gate of one VM.
pub struct Gate {
    waiting: Mutex<Waiting>,
    released: Condvar,
    /// What output depends on from now on: position of the last record.
    depends_on: AtomicU64,
    /// The log is safe up to this position.
    safe: AtomicU64,
    /// Called after more was released, for a guest whose console waits.
    nudge: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

#[derive(Default)]
struct Waiting {
    packets: VecDeque<Packet>,
    bytes: usize,
    /// Packets are being sent.
    sending: bool,
}

struct Packet {
    depends_on: u64,
    tap: Arc<Tap>,
    bytes: Vec<u8>,
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").finish_non_exhaustive()
    }
}

impl Gate {
    /// A gate that is open until [`depend_on`](Self::depend_on) names a position.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            waiting: Mutex::default(),
            released: Condvar::new(),
            depends_on: AtomicU64::new(0),
            safe: AtomicU64::new(0),
            nudge: OnceLock::new(),
        })
    }

    /// Calls `nudge` whenever more was released. Once for a gate.
    pub fn nudges(&self, nudge: impl Fn() + Send + Sync + 'static) {
        // A second VM at the gate would be a bug of ours, and would only wait longer.
        let _ = self.nudge.set(Box::new(nudge));
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on output depends on the record at `position`. On the vCPU's thread. Waits while
    /// too much output is held back.
    pub fn depend_on(&self, position: u64) {
        let full = |waiting: &mut Waiting| waiting.bytes > BYTES_MAX;
        let waiting = self.released.wait_while(self.lock(), full);
        drop(waiting.unwrap_or_else(PoisonError::into_inner));
        self.depends_on.store(position, SeqCst);
    }

    /// Whether output that the guest produces now may leave at once.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.depends_on.load(SeqCst) <= self.safe.load(SeqCst)
    }

    /// The log is safe up to `position`: sends what waits for no more than that. On one thread at a
    /// time.
    pub fn open_up_to(&self, position: u64) {
        if self.safe.fetch_max(position, SeqCst) >= position {
            return;
        }
        loop {
            let mut waiting = self.lock();
            let free = |packet: &Packet| packet.depends_on <= position;
            let count = waiting.packets.iter().take_while(|packet| free(packet)).count();
            let packets: Vec<_> = waiting.packets.drain(..count).collect();
            waiting.bytes -= packets.iter().map(|packet| packet.bytes.len()).sum::<usize>();
            // What is sent meanwhile queues behind these.
            waiting.sending = !packets.is_empty();
            drop(waiting);
            self.released.notify_all();
            if packets.is_empty() {
                break;
            }
            // Others wait until these are out.
            packets.iter().for_each(send);
        }
        if let Some(nudge) = self.nudge.get() {
            nudge();
        }
    }

    /// Waits until everything has left that waits, or was discarded.
    pub fn wait_empty(&self) {
        let full = |waiting: &mut Waiting| !waiting.packets.is_empty() || waiting.sending;
        let waiting = self.released.wait_while(self.lock(), full);
        drop(waiting.unwrap_or_else(PoisonError::into_inner));
    }

    /// Discards what waits, and whatever comes: the VM is fenced. The guest is not told.
    pub fn close_for_good(&self) {
        self.depends_on.store(u64::MAX, SeqCst);
        let mut waiting = self.lock();
        waiting.packets.clear();
        waiting.bytes = 0;
        drop(waiting);
        self.released.notify_all();
    }

    fn send(&self, tap: &Arc<Tap>, packet: Parts<'_>) {
        let mut waiting = self.lock();
        let mut bytes = vec![0; packet.size()];
        packet.read(&mut bytes);
        let depends_on = self.depends_on.load(SeqCst);
        let packet = Packet { depends_on, tap: Arc::clone(tap), bytes };
        let free = depends_on <= self.safe.load(SeqCst);
        if free && waiting.packets.is_empty() && !waiting.sending {
            // Under the lock, so that no other packet overtakes it.
            send(&packet);
        } else if depends_on != u64::MAX {
            waiting.bytes += packet.bytes.len();
            waiting.packets.push_back(packet);
        }
    }
}

fn send(packet: &Packet) {
    match packet.tap.write(&packet.bytes) {
        Ok(true) => {}
        // As on a wire.
        Ok(false) => tracing::debug!("{} accepts no packet for now", packet.tap.name()),
        Err(e) => tracing::debug!("{} does not accept a packet: {e}", packet.tap.name()),
    }
}

/// A TAP device behind a gate.
#[derive(Debug)]
pub struct Gated {
    tap: Arc<Tap>,
    gate: Arc<Gate>,
}

impl Gated {
    /// What is sent to `tap` waits at `gate`; what arrives there does not.
    #[must_use]
    pub fn new(tap: Tap, gate: Arc<Gate>) -> Self {
        Self { tap: Arc::new(tap), gate }
    }
}

impl Backend for Gated {
    fn name(&self) -> &str {
        self.tap.name()
    }

    fn fd(&self) -> RawFd {
        self.tap.fd()
    }

    fn set_offload(&mut self, offload: u32) -> io::Result<()> {
        self.tap.set_offload(offload).map_err(io::Error::other)
    }

    fn send(&mut self, packet: Parts<'_>) -> io::Result<bool> {
        self.gate.send(&self.tap, packet);
        Ok(true)
    }

    fn has_packet(&self) -> bool {
        self.tap.has_packet()
    }

    fn receive(&mut self, buffer: Parts<'_>) -> io::Result<Option<usize>> {
        self.tap.read_to(buffer)
    }
}
