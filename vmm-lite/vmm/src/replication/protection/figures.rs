//! What users see of a protected VM.

use super::set::{Part, Set};
use migrate::replication::arbiter::{MemberId, SetId, Term};
use std::time::Duration;

/// This process's part in a replica set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// It runs the VM.
    Primary,
    /// It executes what the primary did.
    Standby,
    /// Another member runs the VM, or may: this one never does again.
    Fenced,
}

/// A replica set, as this member sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Figures {
    /// The set.
    pub set: SetId,
    /// This member.
    pub member: MemberId,
    /// Its role.
    pub role: Role,
    /// The term, by the arbiter's record as it is known here.
    pub term: Term,
    /// The active member by that record.
    pub active: Option<MemberId>,
    /// The standbys in sync by that record.
    pub in_sync: Vec<MemberId>,
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
    pub standbys: Vec<StandbyFigures>,
    /// For a standby: time since the primary was last heard of.
    pub primary_silent: Option<Duration>,
    /// Copies of this set that diverged, as far as this member has seen.
    pub divergences: u64,
    /// How often this member became the primary.
    pub takeovers: u64,
    /// What happened last, for people; the newest last, at most 16.
    pub events: Vec<String>,
}

/// A standby, as its primary sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StandbyFigures {
    /// The member.
    pub member: MemberId,
    /// Its address, as the user gave it or the connection has it.
    pub address: String,
    /// It is in sync by the arbiter's record: the VM is protected by it.
    pub in_sync: bool,
    /// It is being taken out of the set.
    pub leaving: bool,
    /// Records that it has not received, as far as its acks have arrived.
    pub not_received: u64,
    /// Records that it has not executed.
    pub not_executed: u64,
    /// Age of the oldest of these.
    pub lag: Duration,
    /// Size of these, in bytes, rounded up.
    pub lag_bytes: u64,
    /// Time from sending records to their ack.
    pub round_trip: Duration,
    /// Time since it was last heard of.
    pub silent: Duration,
}

impl Set {
    pub(super) fn role(&self) -> Role {
        match self.lock().part {
            Part::Primary(_) => Role::Primary,
            Part::Standby(..) => Role::Standby,
            Part::Over { .. } => Role::Fenced,
        }
    }

    pub(super) fn figures(&self) -> Figures {
        let core = self.lock();
        let now = core.now();
        let tally = &core.tally;
        let (role, record, last, executed, released) = match &core.part {
            Part::Primary(machine) => {
                let last = core.recent.last();
                (Role::Primary, machine.record(), last, last, machine.released())
            }
            Part::Standby(machine, feed) => {
                let (last, executed) = (machine.received(), feed.executed());
                (Role::Standby, machine.record(), last, executed, machine.known_released())
            }
            Part::Over { .. } => (Role::Fenced, None, core.recent.last(), 0, 0),
        };
        let standbys = match &core.part {
            Part::Primary(machine) => machine
                .standbys(now)
                .map(|(member, behind)| StandbyFigures {
                    member,
                    address: core
                        .peers
                        .get(&member)
                        .map_or_else(|| "not connected".into(), |peer| peer.address.clone()),
                    in_sync: behind.in_sync,
                    leaving: behind.leaving,
                    not_received: behind.not_received,
                    not_executed: behind.not_executed,
                    lag: behind.time,
                    lag_bytes: behind.bytes,
                    round_trip: behind.round_trip,
                    silent: behind.silent,
                })
                .collect(),
            Part::Standby(..) | Part::Over { .. } => Vec::new(),
        };
        let primary_silent = match &core.part {
            Part::Standby(machine, _) => Some(machine.silent(now)),
            Part::Primary(_) | Part::Over { .. } => None,
        };
        Figures {
            set: self.id,
            member: self.me,
            role,
            term: record.map_or_else(Term::default, |record| record.term),
            active: record.map(|record| record.active),
            in_sync: record.map_or_else(Vec::new, |record| record.in_sync.clone()),
            arbiter_unreachable: tally.arbiter_unreachable.clone(),
            last,
            log_bytes: tally.log_bytes,
            executed,
            released,
            slowed_down: core.slow,
            standbys,
            primary_silent,
            divergences: tally.divergences,
            takeovers: tally.takeovers,
            events: tally.events.iter().cloned().collect(),
        }
    }
}
