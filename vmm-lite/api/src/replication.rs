//! A protected VM: the answers of `protect` and `failover`, and the figures.

use serde::{Deserialize, Serialize};

/// The answer to `protect`: the standby is in sync.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Protected {
    /// The standby, in 32 hexadecimal digits.
    pub member: String,
    /// The term, by the arbiter's record.
    pub term: u64,
    /// From the request until it was in sync, in ns.
    pub took_ns: u64,
    /// How long the guest was stopped for the last pages of its copy, in ns.
    pub pause_ns: u64,
    /// Pages copied.
    pub pages: u64,
}

/// The answer to `failover`: the standby runs the VM, and this process stands by.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Swapped {
    /// The member that runs the VM, in 32 hexadecimal digits.
    pub to: String,
    /// The term, by the arbiter's record.
    pub term: u64,
    /// From the request to stop the guest until the other member had said that it runs, in ns.
    pub blackout_ns: u64,
}

/// A process's part in a replica set.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// It runs the VM.
    Primary,
    /// It executes what the primary did.
    Standby,
    /// Another member runs the VM, or may: this one never does again.
    Fenced,
    /// A role that only a newer VM has.
    #[default]
    #[serde(other)]
    Unknown,
}

/// A replica set, as this member sees it. Members and sets are 32 hexadecimal digits.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Replication {
    /// The set.
    pub set: String,
    /// This member.
    pub member: String,
    /// Its role.
    pub role: Role,
    /// The term, by the arbiter's record as it is known here.
    pub term: u64,
    /// The active member by that record.
    pub active: Option<String>,
    /// The standbys in sync by that record.
    pub in_sync: Vec<String>,
    /// Why the arbiter did not answer last time; `None`: it did.
    pub arbiter_unreachable: Option<String>,
    /// Position of the last record: appended by a primary, received by a standby.
    pub last: u64,
    /// Bytes of records that were appended or received here.
    pub log_bytes: u64,
    /// Position of the last record that a standby has executed; a primary's last one.
    pub executed: u64,
    /// Output that depends on records up to this one has been released.
    pub released: u64,
    /// The guest is slowed down, as a standby is too far behind.
    pub slowed_down: bool,
    /// The standbys of a primary.
    pub standbys: Vec<Standby>,
    /// For a standby: time since the primary was last heard of, in ns.
    pub primary_silent_ns: Option<u64>,
    /// Copies that diverged, as far as this member has seen.
    pub divergences: u64,
    /// How often this member became the primary.
    pub takeovers: u64,
    /// What happened last, for people; the newest last.
    pub events: Vec<String>,
}

/// A standby, as its primary sees it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Standby {
    /// The member.
    pub member: String,
    /// Its address.
    pub address: String,
    /// It is in sync by the arbiter's record: the VM is protected by it.
    pub in_sync: bool,
    /// It is being taken out of the set.
    pub leaving: bool,
    /// Records that it has not received, as far as its acks have arrived.
    pub not_received: u64,
    /// Records that it has not executed.
    pub not_executed: u64,
    /// Age of the oldest of these, in ns.
    pub lag_ns: u64,
    /// Size of these, in bytes, rounded up.
    pub lag_bytes: u64,
    /// Time from sending records to their ack, in ns.
    pub round_trip_ns: u64,
    /// Time since it was last heard of, in ns.
    pub silent_ns: u64,
}
