//! What users ask of a member, and what they get.

use migrate::replication::{Settings, arbiter::MemberId};
use std::time::Duration;

/// How a VM is protected.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct How {
    /// Of the state machines.
    pub settings: Settings,
    /// Also protect a VM whose program takes values from the CPU by itself.
    pub allow_own_clock: bool,
}

/// Progress of a standby's seeding.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Progress {
    /// What is being done, in words.
    Phase(&'static str),
    /// Pages copied so far.
    Pages(u64),
}

/// A standby that is in sync.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Protected {
    /// The standby.
    pub member: MemberId,
    /// The term, by the arbiter's record.
    pub term: u64,
    /// From the request until the standby was in sync.
    pub took: Duration,
    /// The pause of the guest for the copy's last pages.
    pub pause: Duration,
    /// Pages copied.
    pub pages: u64,
}

/// A planned swap that took place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Swapped {
    /// The member that runs the VM now.
    pub to: MemberId,
    /// The term, by the arbiter's record.
    pub term: u64,
    /// From the request to stop the guest here until the standby had taken it over, as this member
    /// can tell: until its message that it runs has arrived.
    pub blackout: Duration,
}
