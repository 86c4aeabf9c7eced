//! A machine in figures.

use super::{Error, History, MoveOutcome, Operation, Vm, shared::Shared, steering::Phase};
use crate::{
    devices::throttle::Rates,
    host::{
        confine::jail::{self, Jailed},
        poll::wait_readable,
        watchdog::{self, Stalled},
    },
};
use migrate::brownout::Brownout;
use serde::Serialize;
use std::{
    sync::{
        PoisonError,
        atomic::{
            AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use vmm_lite_interface::layout::PAGE_SIZE;

/// What a machine did since it was made in this process. Fields only ever get added.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Stats {
    /// Its name.
    pub name: String,
    /// This process.
    pub pid: u32,
    /// `running`, `paused` or `ended`.
    pub state: &'static str,
    /// What is being done with it: `move`, `snapshot`, `fork` or `revert`.
    pub operation: Option<Operation>,
    /// Where it was handed to, which runs it or may run it: it does not run here.
    pub handed_to: Option<String>,
    /// It was once resumed on an operator's word that it ran nowhere else.
    pub vouched_for: bool,
    /// How long it has been here, in milliseconds.
    pub uptime_ms: u64,
    /// Size of the guest's memory, in bytes.
    pub memory_bytes: u64,
    /// How much of it is resident.
    pub memory_resident_bytes: u64,
    /// How often it was resumed, its start included.
    pub resumes: u64,
    /// Bytes printed.
    pub console_bytes: u64,
    /// How often its printing was held back to its rate (`--console-rate`).
    pub console_throttled: u64,
    /// For how long in all.
    pub console_throttled_ns: u64,
    /// What its process is jailed by, if it is.
    pub jail: Option<Jailed>,
    /// What its network and its console are held back to.
    pub rates: Rates,
    /// Exits, by kind.
    pub exits: ExitCounts,
    /// The network, if there is one.
    pub net: Option<NetStats>,
    /// What the guest says of itself.
    pub guest: GuestStats,
    /// What it went through in all its life.
    pub history: History,
    /// How fast it wrote when somebody last looked.
    pub dirty_rate: Option<DirtyRate>,
    /// How often a thread of this process did not answer in time.
    pub stalls: u64,
    /// Those that do not now.
    pub stalled: Vec<Stalled>,
}

/// How fast a guest wrote to its memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct DirtyRate {
    /// Whole pages, however little of each; a page counts once in the time that was looked at.
    pub pages_per_second: u64,
    /// The same in bytes.
    pub bytes_per_second: u64,
    /// When somebody looked, in milliseconds after 1970.
    pub unix_ms: u64,
}

/// Exits of the guest, by kind, as they are counted.
#[derive(Debug, Default)]
pub(super) struct Exits {
    pub doorbell: AtomicU64,
    pub wait: AtomicU64,
    pub slept: AtomicU64,
    pub net: AtomicU64,
    pub console: AtomicU64,
    pub mmio: AtomicU64,
    pub kicked: AtomicU64,
    pub quiesced: AtomicU64,
}

impl Exits {
    pub(super) fn count(counter: &AtomicU64) {
        // Only the vCPU thread writes, so that no read-modify-write is needed.
        counter.store(counter.load(Relaxed) + 1, Relaxed);
    }
}

/// Exits of the guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct ExitCounts {
    /// The doorbell, rung for whatever.
    pub doorbell: u64,
    /// Of these, to wait.
    pub wait: u64,
    /// How often the vCPU thread slept in a wait.
    pub slept: u64,
    /// To serve the network without waiting.
    pub net: u64,
    /// To print.
    pub console: u64,
    /// To say that the guest is quiescent.
    pub quiesced: u64,
    /// Registers of the network device.
    pub mmio: u64,
    /// Signals.
    pub kicked: u64,
}

/// What went through the network device.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct NetStats {
    /// The guest's Ethernet address.
    pub mac: String,
    /// Its address, if it was given one.
    pub ip: Option<String>,
    /// Packets to the guest.
    pub rx_packets: u64,
    /// Bytes to the guest.
    pub rx_bytes: u64,
    /// Packets that did not fit its buffers.
    pub rx_dropped: u64,
    /// Packets from the guest.
    pub tx_packets: u64,
    /// Bytes from the guest.
    pub tx_bytes: u64,
    /// Packets from it that the host did not take.
    pub tx_dropped: u64,
    /// Packets from it that came from addresses which are not its own, and were dropped.
    pub tx_spoofed: u64,
    /// How often packets to the guest were held back to its rate (`--net-rate`).
    pub rx_throttled: u64,
    /// For how long in all.
    pub rx_throttled_ns: u64,
    /// How often packets from it were.
    pub tx_throttled: u64,
    /// For how long in all.
    pub tx_throttled_ns: u64,
    /// The longest packets that the guest was told of (MTU).
    pub mtu: u16,
}

/// What the guest says of itself, unchecked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct GuestStats {
    /// Threads that have not ended.
    pub threads: u64,
    /// Bytes the program has allocated.
    pub heap_used: u64,
    /// Bytes it could still allocate.
    pub heap_free: u64,
    /// Open sockets.
    pub sockets: u64,
}

impl Stats {
    pub(super) fn of(shared: &Shared) -> Self {
        let n = |a: &AtomicU64| a.load(Relaxed);
        let (operation, handed_to) = shared.doing();
        let (exits, guest) = (&shared.exits, &shared.ram.control_page().stats);
        Self {
            name: shared.identity.name.clone(),
            pid: std::process::id(),
            state: match shared.phase() {
                Phase::Running => "running",
                Phase::Paused { .. } => "paused",
                Phase::Ended(_) => "ended",
            },
            operation,
            handed_to,
            vouched_for: shared.was_vouched_for.load(SeqCst),
            uptime_ms: shared.made.elapsed().as_millis() as u64,
            memory_bytes: shared.ram.size(),
            memory_resident_bytes: shared.ram.resident().unwrap_or(0),
            resumes: n(&shared.resumes),
            console_bytes: shared.console.printed(),
            console_throttled: shared.console.held.times(),
            console_throttled_ns: shared.console.held.ns(),
            jail: jail::jailed().cloned(),
            rates: *shared.lock_rates(),
            exits: ExitCounts {
                doorbell: n(&exits.doorbell),
                wait: n(&exits.wait),
                slept: n(&exits.slept),
                net: n(&exits.net),
                console: n(&exits.console),
                quiesced: n(&exits.quiesced),
                mmio: n(&exits.mmio),
                kicked: n(&exits.kicked),
            },
            net: shared.net_counters.as_ref().zip(shared.identity.net.as_ref()).map(|(c, id)| {
                NetStats {
                    mac: mac_text(id.mac),
                    ip: id.ip.map(|ip| ip.to_string()),
                    rx_packets: n(&c.rx_packets),
                    rx_bytes: n(&c.rx_bytes),
                    rx_dropped: n(&c.rx_dropped),
                    tx_packets: n(&c.tx_packets),
                    tx_bytes: n(&c.tx_bytes),
                    tx_dropped: n(&c.tx_dropped),
                    tx_spoofed: n(&c.tx_spoofed),
                    rx_throttled: c.rx_held.times(),
                    rx_throttled_ns: c.rx_held.ns(),
                    tx_throttled: c.tx_held.times(),
                    tx_throttled_ns: c.tx_held.ns(),
                    mtu: c.mtu.load(Relaxed),
                }
            }),
            guest: GuestStats {
                threads: n(&guest.threads),
                heap_used: n(&guest.heap_used),
                heap_free: n(&guest.heap_free),
                sockets: n(&guest.sockets),
            },
            stalls: watchdog::stalls(),
            stalled: watchdog::stalled(),
            history: *shared.lock_history(),
            dirty_rate: {
                let rate = shared.dirty_rate.lock().unwrap_or_else(PoisonError::into_inner);
                rate.map(|(pages, when)| DirtyRate {
                    pages_per_second: pages,
                    bytes_per_second: pages.saturating_mul(PAGE_SIZE),
                    unix_ms: when.duration_since(UNIX_EPOCH).map_or(0, |t| t.as_millis() as u64),
                })
            },
        }
    }
}

impl Vm {
    /// Takes note of how a move ended, in the machine's [`History`].
    pub fn note_move(&self, outcome: MoveOutcome) {
        self.shared.lock_history().moved(outcome);
    }

    /// Takes note of how long the guest was slower after a move.
    pub fn note_brownout(&self, brownout: Brownout) {
        self.shared.lock_history().settled(brownout);
    }

    /// How many pages the guest writes in a second, watched for `window`; `None` when something
    /// that needs the log of dirty pages for itself began meanwhile. Watching makes the first write
    /// to each page slower.
    ///
    /// # Errors
    /// What KVM says.
    pub fn sample_dirty_rate(&self, window: Duration) -> Result<Option<u64>, Error> {
        let began = Instant::now();
        let Some(watch) = self.shared.log.watch()? else { return Ok(None) };
        // Ended early by the machine's own end.
        let _ = wait_readable(self.end_fd(), window);
        let Some(pages) = watch.pages()? else { return Ok(None) };
        let rate = (pages as f64 / began.elapsed().as_secs_f64()) as u64;
        *self.shared.dirty_rate.lock().unwrap_or_else(PoisonError::into_inner) =
            Some((rate, SystemTime::now()));
        Ok(Some(rate))
    }
}

/// An Ethernet address as people write it.
#[must_use]
pub fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|b| format!("{b:02x}")).join(":")
}
