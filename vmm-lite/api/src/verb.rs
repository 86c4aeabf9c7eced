//! The verbs with their arguments. A member that may be missing has a default; members that are
//! not known are ignored.

use crate::{
    Request,
    answer::{self, ConsoleOpen, Done, Paused},
    copies::{ForkReport, RevertReport, SnapshotReport},
    moves::MoveReport,
    replication::{Protected, Swapped},
    stats,
};
use serde::{
    Deserialize, Serialize,
    de::{DeserializeOwned, IgnoredAny},
};
use std::net::SocketAddr;

/// A verb: what [`Client::call`](crate::Client::call) sends, and the type of its answer.
pub trait Verb: Into<Request> {
    /// The value of `ok`.
    type Answer: DeserializeOwned;
}

fn is_false(flag: &bool) -> bool {
    !*flag
}

/// Figures of the VM.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Stats {
    /// First measure for this long how fast the guest writes, in milliseconds; the VM takes a value
    /// outside of 1 to 10000 for the nearest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dirty_rate_ms: Option<u64>,
}

/// The figures for Prometheus.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Metrics {}

/// Pause the VM until [`Resume`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Pause {
    /// First let the program's quiesce hooks run, for at most this long, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quiesce_ms: Option<u64>,
}

/// Resume a paused VM.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Resume {
    /// An operator's override: run a VM on that was handed to another host.
    #[serde(default, skip_serializing_if = "is_false")]
    pub runs_nowhere_else: bool,
}

/// End the VM without asking its program.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Stop {
    /// Even if another host may need what only this process has.
    #[serde(default, skip_serializing_if = "is_false")]
    pub force: bool,
}

/// Cancel the operation in progress.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Cancel {}

/// Turn the connection into the console.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Console {}

/// Move the VM to another host. With it come, in this order, the signer's socket if there is an
/// `identity`, and the connector's socket if `connector` is set.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Migrate {
    /// The destination: `tcp://HOST:PORT`.
    pub to: String,
    /// What the destination's name resolves to. The VM tries the first eight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<Vec<String>>"))]
    pub addresses: Option<Vec<SocketAddr>>,
    /// How memory is transferred.
    #[serde(default)]
    pub mode: MoveMode,
    /// Fail the move if the predicted blackout is longer, in ns; not 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_blackout_ns: Option<u64>,
    /// Most bytes per second while the guest runs; not 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<u64>,
    /// The timeout for all before the switch, in ns; not 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ns: Option<u64>,
    /// How this host proves its identity: either this, or `plaintext`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,
    /// Neither encrypted nor authenticated.
    #[serde(default, skip_serializing_if = "is_false")]
    pub plaintext: bool,
    /// The last descriptor is the socket of a connector.
    #[serde(default, skip_serializing_if = "is_false")]
    pub connector: bool,
}

/// How memory is transferred in a move.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum MoveMode {
    /// Rounds; post-copy if what is left does not fit the blackout.
    #[default]
    Auto,
    /// All memory before the switch.
    PreCopy,
    /// One round, then the switch; the rest is post-copied.
    Hybrid,
    /// All memory while the guest is stopped.
    StopAndCopy,
    /// The destination executes what the VM does, as a standby does, and is given it then.
    Lockstep,
}

/// What a VM's process needs to prove its host's identity in one move, without the private key.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Identity {
    /// The host's certificate, as PEM.
    pub certificate: String,
    /// The hosts that may receive VMs: key and name.
    pub receivers: Vec<(String, String)>,
    /// Of these, the keys that may answer; without it, any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<Vec<String>>,
    /// Must be absent: no request may contain a private key. What it holds is not kept.
    #[serde(default, skip_serializing)]
    #[cfg_attr(test, schemars(skip))]
    pub key: Option<IgnoredAny>,
}

/// Save the VM to the first file, or, with two files, as the difference to the second.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Snapshot {
    /// The VM is paused from the instant of the snapshot on.
    #[serde(default, skip_serializing_if = "is_false")]
    pub stay_paused: bool,
    /// How a running VM is copied.
    #[serde(default)]
    pub mode: CopyMode,
    /// How long to wait for missing memory, in ns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ns: Option<u64>,
}

/// How to copy a running VM.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum CopyMode {
    /// In rounds, or on write if the guest writes faster than that.
    #[default]
    Auto,
    /// In rounds while it runs, and what is left then while it is stopped, however much.
    Rounds,
    /// Pages are copied when the guest tries to write to them, and the others in the background.
    CopyOnWrite,
}

/// Copy the VM for clones: its memory to the first file, its manifest and state to the second.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Fork {
    /// How long to wait for missing memory, in ns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ns: Option<u64>,
}

/// Revert the VM to the snapshot in the file that comes with the request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Revert {
    /// How its monotonic clock continues.
    #[serde(default)]
    pub clock: Clock,
    /// How long to wait for missing memory, in ns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ns: Option<u64>,
}

/// Protect the VM by a standby. With it come, in this order, the signer's socket if there is an
/// `identity`, the sockets of the process that asks the arbiter and of the one that keeps packets,
/// that of the one that protects the VM again if `protector` is set, and the connector's socket if
/// `connector` is set.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Protect {
    /// The standby: `tcp://HOST:PORT`.
    pub to: String,
    /// What its name resolves to. The VM tries the first eight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<Vec<String>>"))]
    pub addresses: Option<Vec<SocketAddr>>,
    /// When output may leave the host.
    #[serde(default)]
    pub commit: Commit,
    /// How far the standby may be behind before the VM is slowed down, in ns; not 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_lag_ns: Option<u64>,
    /// Time between two heartbeats, in ns; not 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heartbeat_ns: Option<u64>,
    /// Number of heartbeats missed after which a silent peer is suspected; not 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub misses: Option<u32>,
    /// Also if the program takes values from the CPU by itself.
    #[serde(default, skip_serializing_if = "is_false")]
    pub allow_own_clock: bool,
    /// Dangerous: go on alone when neither the standby nor the arbiter is reachable.
    #[serde(default, skip_serializing_if = "is_false")]
    pub alone_without_arbiter: bool,
    /// How this host proves its identity: either this, or `plaintext`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,
    /// Neither encrypted nor authenticated.
    #[serde(default, skip_serializing_if = "is_false")]
    pub plaintext: bool,
    /// The socket comes of a process that has the VM protected again when it has no standby left.
    #[serde(default, skip_serializing_if = "is_false")]
    pub protector: bool,
    /// The last descriptor is the socket of a connector.
    #[serde(default, skip_serializing_if = "is_false")]
    pub connector: bool,
}

/// When output of a protected VM may leave its host.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Commit {
    /// When every standby in sync has received what it depends on.
    #[default]
    Received,
    /// When every standby in sync has executed that, and computed the same.
    Executed,
}

/// End the protection of the VM; its standbys end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Unprotect {
    /// How long to wait for the arbiter, in ns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ns: Option<u64>,
}

/// Swap roles with a standby: it runs the VM then, and this process stands by.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Failover {
    /// The member, in 32 hexadecimal digits; without it, the only standby in sync.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// How long it may take, in ns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ns: Option<u64>,
}

/// How the monotonic clock of a guest from a file continues.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Clock {
    /// From where it was: no timeout expires while the guest is in a file.
    #[default]
    Continue,
    /// As if the guest had waited.
    Jump,
}

impl Verb for Stats {
    type Answer = stats::Stats;
}
impl Verb for Metrics {
    type Answer = answer::Metrics;
}
impl Verb for Pause {
    type Answer = Paused;
}
impl Verb for Resume {
    type Answer = Done;
}
impl Verb for Stop {
    type Answer = Done;
}
impl Verb for Cancel {
    type Answer = Done;
}
impl Verb for Console {
    type Answer = ConsoleOpen;
}
impl Verb for Migrate {
    type Answer = MoveReport;
}
impl Verb for Snapshot {
    type Answer = SnapshotReport;
}
impl Verb for Fork {
    type Answer = ForkReport;
}
impl Verb for Revert {
    type Answer = RevertReport;
}
impl Verb for Protect {
    type Answer = Protected;
}
impl Verb for Unprotect {
    type Answer = Done;
}
impl Verb for Failover {
    type Answer = Swapped;
}
