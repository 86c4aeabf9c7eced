//! Output of a guest that may leave only when its log is safe (rule R3).
//!
//! A packet depends on everything that the guest was given before it was sent: on the record of the
//! exit at which it was sent, and on all before that. Another thread opens the gate up to a
//! position once the log is safe up to there.
//!
//! A standby makes the same output as its primary. At its gate everything waits until it is known
//! to have left the primary, and is forgotten then; what is left when the standby takes over is
//! sent.

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
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
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
    /// Output is discarded.
    closed: AtomicBool,
    /// Called after more was released, for a guest whose console waits.
    nudge: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

#[derive(Default)]
struct Waiting {
    packets: VecDeque<Packet>,
    bytes: usize,
    /// Packets are being sent.
    sending: bool,
    /// A standby's: nothing is sent, and what depends on no more than this is forgotten.
    stands_by: Option<u64>,
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
            closed: AtomicBool::new(false),
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
        !self.is_closed() && self.depends_on.load(SeqCst) <= self.safe.load(SeqCst)
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
        self.nudge();
    }

    /// This is a standby from now on, whose primary has sent all that depends on no more than
    /// `sent`.
    pub fn stand_by(&self, sent: u64) {
        self.lock().stands_by = Some(sent);
        self.forget_up_to(sent);
    }

    /// This is no standby any more: what waits is sent by [`open_up_to`](Self::open_up_to).
    pub fn take_over(&self) {
        self.lock().stands_by = None;
    }

    /// A standby's primary has sent all output that depends on no more than `position`.
    pub fn forget_up_to(&self, position: u64) {
        let mut waiting = self.lock();
        let Some(sent) = &mut waiting.stands_by else { return };
        *sent = position.max(*sent);
        let gone = waiting.packets.iter().take_while(|packet| packet.depends_on <= position);
        let count = gone.count();
        let bytes: usize = waiting.packets.drain(..count).map(|packet| packet.bytes.len()).sum();
        waiting.bytes -= bytes;
        drop(waiting);
        self.released.notify_all();
    }

    /// The log is safe up to this position.
    #[must_use]
    pub fn opened_up_to(&self) -> u64 {
        self.safe.load(SeqCst)
    }

    /// Waits until everything has left that waits, or was discarded.
    pub fn wait_empty(&self) {
        let full = |waiting: &mut Waiting| !waiting.packets.is_empty() || waiting.sending;
        let waiting = self.released.wait_while(self.lock(), full);
        drop(waiting.unwrap_or_else(PoisonError::into_inner));
    }

    /// Discards what waits, and whatever comes: the log cannot be kept, and the VM ends.
    pub fn close_for_good(&self) {
        let mut waiting = self.lock();
        self.closed.store(true, SeqCst);
        waiting.packets.clear();
        waiting.bytes = 0;
        drop(waiting);
        self.released.notify_all();
        self.nudge();
    }

    /// Whether output is discarded.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed.load(SeqCst)
    }

    fn nudge(&self) {
        if let Some(nudge) = self.nudge.get() {
            nudge();
        }
    }

    /// Takes a packet: sends it, keeps it, or discards it.
    fn take(&self, tap: &Arc<Tap>, bytes: Vec<u8>) {
        let mut waiting = self.lock();
        if self.is_closed() {
            return;
        }
        let depends_on = self.depends_on.load(SeqCst);
        if waiting.stands_by.is_some_and(|sent| depends_on <= sent) {
            return;
        }
        let packet = Packet { depends_on, tap: Arc::clone(tap), bytes };
        let free = waiting.stands_by.is_none() && depends_on <= self.safe.load(SeqCst);
        if free && waiting.packets.is_empty() && !waiting.sending {
            // Under the lock, so that no other packet overtakes it.
            send(&packet);
        } else {
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
        let mut bytes = vec![0; packet.size()];
        packet.read(&mut bytes);
        self.gate.take(&self.tap, bytes);
        Ok(true)
    }

    fn has_packet(&self) -> bool {
        self.tap.has_packet()
    }

    fn receive(&mut self, buffer: Parts<'_>) -> io::Result<Option<usize>> {
        self.tap.read_to(buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{os::unix::net::UnixDatagram, sync::atomic::AtomicUsize};

    fn gated() -> (UnixDatagram, Arc<Tap>, Arc<Gate>) {
        let (device, other) = UnixDatagram::pair().unwrap();
        other.set_nonblocking(true).unwrap();
        (other, Arc::new(Tap::over(device.into())), Gate::new())
    }

    /// Sends a packet whose only byte is `n`, as a guest would that depends on `position`.
    fn sends(gate: &Gate, tap: &Arc<Tap>, position: u64, n: u8) {
        gate.depend_on(position);
        gate.take(tap, vec![n]);
    }

    fn arrived(wire: &UnixDatagram) -> Vec<u8> {
        let mut all = Vec::new();
        let mut packet = [0; 8];
        while let Ok(len) = wire.recv(&mut packet) {
            all.extend(&packet[..len]);
        }
        all
    }

    #[test]
    fn packets_leave_in_their_order_when_their_records_are_safe() {
        let (wire, tap, gate) = gated();
        let nudges = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&nudges);
        gate.nudges(move || {
            count.fetch_add(1, SeqCst);
        });
        assert!(gate.is_open());
        for (position, n) in [(2, 1), (2, 2), (4, 3), (6, 4)] {
            sends(&gate, &tap, position, n);
        }
        assert!(!gate.is_open() && arrived(&wire).is_empty());
        for (safe, then) in [(1, &[][..]), (3, &[1, 2]), (3, &[]), (2, &[]), (6, &[3, 4])] {
            gate.open_up_to(safe);
            assert_eq!(arrived(&wire), then, "safe up to {safe}");
        }
        assert!(gate.is_open());
        sends(&gate, &tap, 6, 5);
        assert_eq!(arrived(&wire), [5], "at once");
        assert_eq!(nudges.load(SeqCst), 3, "once for each advance");
        gate.wait_empty();
    }

    #[test]
    fn a_standby_sends_what_its_primary_has_not_sent_when_it_takes_over() {
        let (wire, tap, gate) = gated();
        gate.stand_by(2);
        for (position, n) in [(2, 1), (3, 2), (4, 3), (5, 4)] {
            sends(&gate, &tap, position, n);
        }
        gate.forget_up_to(3);
        assert!(arrived(&wire).is_empty());
        gate.take_over();
        gate.open_up_to(5);
        assert_eq!(arrived(&wire), [3, 4]);
    }

    #[test]
    fn nothing_leaves_a_gate_that_is_closed_for_good() {
        let (wire, tap, gate) = gated();
        sends(&gate, &tap, 2, 1);
        gate.close_for_good();
        sends(&gate, &tap, 3, 2);
        gate.open_up_to(9);
        gate.wait_empty();
        assert!(arrived(&wire).is_empty() && gate.is_closed() && !gate.is_open());
    }
}
