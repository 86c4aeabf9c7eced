//! The statistics of a VM.

use super::{Error, History, MoveOutcome, Operation, Vm, shared::Shared};
use crate::{
    devices::throttle::Rates,
    host::{
        confine::jail::{self, Jailed},
        poll::wait_readable,
        watchdog::{self, Stalled},
    },
    vcpu::Phase,
};
use migrate::brownout::Brownout;
use std::{
    sync::atomic::{
        AtomicU64,
        Ordering::{Relaxed, SeqCst},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use vmm_lite_interface::layout::PAGE_SIZE;

/// What a VM did since it was made in this process. Fields are only ever added.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stats {
    /// Its name.
    pub name: String,
    /// This process.
    pub pid: u32,
    /// Whether it runs.
    pub state: RunState,
    /// The operation in progress: `move`, `snapshot`, `fork` or `revert`.
    pub operation: Option<Operation>,
    /// The host that it was handed over to, which runs it or may run it: it does not run here.
    pub handed_to: Option<String>,
    /// It was once resumed by operator override.
    pub vouched_for: bool,
    /// How long it has been here, in milliseconds.
    pub uptime_ms: u64,
    /// Size of the guest's memory, in bytes.
    pub memory_bytes: u64,
    /// The resident part of it, in bytes.
    pub memory_resident_bytes: u64,
    /// How often it was resumed, its start included.
    pub resumes: u64,
    /// Bytes printed.
    pub console_bytes: u64,
    /// How often its output was throttled to its rate (`--console-rate`).
    pub console_throttled: u64,
    /// For how long in total.
    pub console_throttled_ns: u64,
    /// What its process is jailed by, if it is in a jail.
    pub jail: Option<Jailed>,
    /// The rates of its network and its console.
    pub rates: Rates,
    /// Exits, by kind.
    pub exits: ExitCounts,
    /// The network, if there is one.
    pub net: Option<NetStats>,
    /// The guest's own statement.
    pub guest: GuestStats,
    /// Its history on all hosts.
    pub history: History,
    /// Its write rate in the last measurement.
    pub dirty_rate: Option<DirtyRate>,
    /// How many operations and measurements have its writes logged now, which slows them down.
    pub dirty_log_users: u64,
    /// How often a thread of this process did not answer in time.
    pub stalls: u64,
    /// The threads that do not answer now.
    pub stalled: Vec<Stalled>,
}

/// Whether a VM runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RunState {
    /// It runs.
    Running,
    /// It is paused.
    Paused,
    /// It has ended.
    Ended,
}

/// How fast a guest wrote to its memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DirtyRate {
    /// Whole pages, however little of each changed; a page counts once per measurement.
    pub pages_per_second: u64,
    /// The same in bytes.
    pub bytes_per_second: u64,
    /// The time of the measurement, in milliseconds after 1970.
    pub unix_ms: u64,
}

/// Exits of the guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ExitCounts {
    /// The doorbell, for any reason.
    pub doorbell: u64,
    /// Of these, to wait.
    pub wait: u64,
    /// How often the vCPU thread slept in a wait.
    pub slept: u64,
    /// To serve the network without waiting.
    pub net: u64,
    /// To print.
    pub console: u64,
    /// To report that the guest is quiescent.
    pub quiesced: u64,
    /// Registers of the network device.
    pub mmio: u64,
    /// Signals.
    pub kicked: u64,
}

/// What went through the network device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NetStats {
    /// The guest's Ethernet address.
    pub mac: String,
    /// Its address, if one was assigned.
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
    /// Packets from it that the host did not accept.
    pub tx_dropped: u64,
    /// Packets from it with a source address that is not its own. They were dropped.
    pub tx_spoofed: u64,
    /// How often packets to the guest were throttled to its rate (`--net-rate`).
    pub rx_throttled: u64,
    /// For how long in total.
    pub rx_throttled_ns: u64,
    /// How often packets from it were throttled.
    pub tx_throttled: u64,
    /// For how long in total.
    pub tx_throttled_ns: u64,
    /// The guest's MTU.
    pub mtu: u16,
}

/// The guest's own statement, unchecked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
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
        let (vcpus, console) = (&shared.vcpus, shared.vcpus.console());
        let (exits, guest) = (&vcpus.exits, &vcpus.ram.control_page().stats);
        Self {
            name: shared.identity.name.clone(),
            pid: std::process::id(),
            state: match shared.phase() {
                Phase::Running => RunState::Running,
                Phase::Paused { .. } => RunState::Paused,
                Phase::Ended(_) => RunState::Ended,
            },
            operation,
            handed_to,
            vouched_for: shared.record.was_vouched_for.load(SeqCst),
            uptime_ms: vcpus.entered.made.elapsed().as_millis() as u64,
            memory_bytes: vcpus.ram.size(),
            memory_resident_bytes: vcpus.ram.resident().unwrap_or(0),
            resumes: n(&vcpus.resumes),
            console_bytes: console.printed(),
            console_throttled: console.held.times(),
            console_throttled_ns: console.held.ns(),
            jail: jail::jailed().cloned(),
            rates: *shared.record.rates(),
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
            net: shared.nets.first().zip(shared.identity.nets.first()).map(|(port, id)| {
                let c = &port.counters;
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
            dirty_log_users: shared.log.users() as u64,
            stalls: watchdog::stalls(),
            stalled: watchdog::stalled(),
            history: *shared.record.history(),
            dirty_rate: shared.record.dirty_rate().map(|(pages, when)| DirtyRate {
                pages_per_second: pages,
                bytes_per_second: pages.saturating_mul(PAGE_SIZE),
                unix_ms: when.duration_since(UNIX_EPOCH).map_or(0, |t| t.as_millis() as u64),
            }),
        }
    }
}

impl Vm {
    /// Records how a move ended, in the VM's [`History`].
    pub fn note_move(&self, outcome: MoveOutcome) {
        self.shared.record.history().moved(outcome);
    }

    /// Records how long the guest was slower after a move.
    pub fn note_brownout(&self, brownout: Brownout) {
        self.shared.record.history().settled(brownout);
    }

    /// How many pages change per second, by the guest's writes and the VMM's for it, measured for
    /// `window`. Measuring makes the first write to each page slower.
    ///
    /// # Errors
    /// KVM's error.
    pub fn sample_dirty_rate(&self, window: Duration) -> Result<u64, Error> {
        let began = Instant::now();
        let view = self.shared.log.start_empty()?;
        // The VM's own end ends the wait early.
        let _ = wait_readable(self.end_fd(), window);
        let pages = view.peek()?.len();
        let rate = (pages as f64 / began.elapsed().as_secs_f64()) as u64;
        *self.shared.record.dirty_rate() = Some((rate, SystemTime::now()));
        Ok(rate)
    }
}

/// An Ethernet address in the usual notation.
#[must_use]
pub fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|b| format!("{b:02x}")).join(":")
}
