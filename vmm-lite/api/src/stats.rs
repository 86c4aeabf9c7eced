//! The figures of a VM.

use crate::replication::Replication;
use serde::{Deserialize, Serialize};

/// What a VM did since it was made in its process. Members are only ever added.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Stats {
    /// Its name.
    pub name: String,
    /// Its process.
    pub pid: u32,
    /// Whether it runs.
    pub state: State,
    /// The operation in progress.
    pub operation: Option<Operation>,
    /// The address of the host that it was handed to, which runs it or may run it.
    pub handed_to: Option<String>,
    /// It was once resumed by an operator's override.
    pub vouched_for: bool,
    /// How long it has been in this process, in milliseconds.
    pub uptime_ms: u64,
    /// Size of the guest's memory, in bytes.
    pub memory_bytes: u64,
    /// How much of it the host has given out, in bytes.
    pub memory_resident_bytes: u64,
    /// How often it was resumed, its start included.
    pub resumes: u64,
    /// Bytes printed.
    pub console_bytes: u64,
    /// How often its output was throttled to its rate.
    pub console_throttled: u64,
    /// For how long in total, in ns; a wait counts when it is over.
    pub console_throttled_ns: u64,
    /// What its process is jailed by, if it is in a jail.
    pub jail: Option<Jail>,
    /// The rate limits of its process.
    pub rates: Rates,
    /// Exits, by kind.
    pub exits: Exits,
    /// The network, if there is one.
    pub net: Option<Net>,
    /// The guest's own statement.
    pub guest: Guest,
    /// What it went through since it was booted, on all hosts.
    pub history: History,
    /// Its write rate in the last measurement.
    pub dirty_rate: Option<DirtyRate>,
    /// How many operations and measurements have the guest's writes logged now.
    pub dirty_log_users: u64,
    /// How often a thread of its process did not answer in time.
    pub stalls: u64,
    /// The threads that do not answer now.
    pub stalled: Vec<Stalled>,
    /// Its protection, if it is protected or a standby's copy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replication: Option<Replication>,
}

/// Whether a VM runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It runs.
    Running,
    /// It is paused.
    Paused,
    /// It has ended.
    Ended,
    /// A state that only a newer VM has.
    #[default]
    #[serde(other)]
    Unknown,
}

/// An operation that needs the whole VM for a while.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Operation {
    /// It moves to another host.
    Move,
    /// It is saved to a file.
    Snapshot,
    /// It is copied for clones.
    Fork,
    /// It is reverted to a snapshot.
    Revert,
    /// It replays its journal, and goes on where that ends.
    Replay,
    /// It is copied for a standby.
    Protect,
    /// It is a standby's copy.
    StandBy,
    /// An operation that only a newer VM has.
    #[serde(other)]
    Unknown,
}

/// What jails a process.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Jail {
    /// The user, which no other process has; `None`: it has no user of its own.
    pub user: Option<u32>,
    /// It can open no files.
    pub files: bool,
    /// It has no network.
    pub network: bool,
    /// Its own cgroup.
    pub cgroup: Option<String>,
}

/// Rate limits; `None`: there is no limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Rates {
    /// Of the network, each direction by itself.
    pub net: NetRate,
    /// Bytes that the guest prints.
    pub console: Option<Rate>,
}

/// Rate limits of one direction of the network.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct NetRate {
    /// Bytes.
    pub bytes: Option<Rate>,
    /// Packets.
    pub packets: Option<Rate>,
}

/// A rate limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Rate {
    /// This much per second,
    pub per_second: u64,
    /// and this much at once after idle time.
    pub burst: u64,
}

/// How often the guest left the CPU to the VMM, by reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Exits {
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
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Net {
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
    /// How often packets to the guest were throttled to its rate.
    pub rx_throttled: u64,
    /// For how long in total, in ns.
    pub rx_throttled_ns: u64,
    /// How often packets from it were throttled.
    pub tx_throttled: u64,
    /// For how long in total, in ns.
    pub tx_throttled_ns: u64,
    /// The guest's MTU, in bytes.
    pub mtu: u16,
}

/// The guest's own statement, unchecked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Guest {
    /// Threads that have not ended.
    pub threads: u64,
    /// Bytes the program has allocated.
    pub heap_used: u64,
    /// Bytes it could still allocate.
    pub heap_free: u64,
    /// Open sockets.
    pub sockets: u64,
}

/// The part of a VM's figures that moves with it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct History {
    /// Successful moves.
    pub moves_arrived: u64,
    /// Cancelled moves.
    pub moves_cancelled: u64,
    /// Failed moves.
    pub moves_failed: u64,
    /// The blackout of each successful move, as measured by its destination.
    pub blackout: Histogram,
    /// How long the guest took to quiesce on request, or to stop where it need not quiesce.
    pub quiesce: Histogram,
    /// How often it did not quiesce in time.
    pub quiesce_unanswered: u64,
    /// The brownout of each successful move, as measured by its destination.
    pub brownout: Histogram,
}

/// A histogram of durations.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Histogram {
    /// How many are in each bucket; see `docs/control-socket.md` for the bounds.
    pub counts: Vec<u64>,
    /// The sum of all of them, in ns.
    pub sum_ns: u64,
}

/// How fast a guest wrote to its memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct DirtyRate {
    /// Whole pages, however little of each changed; a page counts once per measurement.
    pub pages_per_second: u64,
    /// The same in bytes.
    pub bytes_per_second: u64,
    /// The time of the measurement, in milliseconds after 1970.
    pub unix_ms: u64,
}

/// A thread that does not answer.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Stalled {
    /// Its name.
    pub thread: String,
    /// Its id.
    pub tid: i32,
    /// What it does or was asked to do, in words.
    pub doing: String,
    /// For how long it has made no progress, in milliseconds.
    pub for_ms: u64,
}
