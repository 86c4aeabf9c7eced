//! A member's process and its guest.

use std::time::Duration;

use migrate::replication::{
    Primary, Standby,
    arbiter::{Answer, MemberId, Request, SetId, Version, Versioned},
};

pub const SET: SetId = SetId([9; 16]);

pub fn id(member: usize) -> MemberId {
    MemberId([member as u8 + 1; 16])
}

pub fn member(id: MemberId) -> usize {
    usize::from(id.0[0]) - 1
}

/// A record: the member that made it, and a number that no other record has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    pub by: u8,
    pub number: u32,
}

#[derive(Debug)]
pub enum Role {
    Primary(Box<Primary>),
    Standby(Box<Standby>),
    Ended,
}

#[derive(Debug)]
pub struct Host {
    pub role: Role,
    pub log: Vec<Entry>,
    pub executed: usize,
    /// Output up to here was released by this member or, as it knows, by another.
    pub gone_out: usize,
    pub wrong: bool,
    pub slow_guest: bool,
    pub stopped: bool,
    /// Time to execute a record, in µs.
    pub speed: u64,
    /// Nothing happens in it before.
    pub frozen: Duration,
    pub executing: bool,
    /// Number of its open request.
    pub request: Option<u64>,
    /// Its next tick.
    pub tick: Option<Duration>,
}

impl Host {
    pub fn new(role: Role, log: Vec<Entry>, speed: u64) -> Self {
        Self {
            role,
            executed: log.len(),
            gone_out: log.len(),
            log,
            wrong: false,
            slow_guest: false,
            stopped: false,
            speed,
            frozen: Duration::ZERO,
            executing: false,
            request: None,
            tick: None,
        }
    }

    pub fn active(&self) -> Option<&Primary> {
        match &self.role {
            Role::Primary(primary) if primary.active() => Some(primary),
            _ => None,
        }
    }

    pub fn deadline(&self) -> Option<Duration> {
        match &self.role {
            Role::Primary(machine) => machine.deadline(),
            Role::Standby(machine) => machine.deadline(),
            Role::Ended => None,
        }
    }

    /// Whether it could go on one day.
    pub fn there(&self) -> bool {
        !matches!(self.role, Role::Ended) && !self.wrong
    }
}

#[derive(Default, Debug)]
pub struct Arbiter {
    pub there: Option<Versioned>,
    /// It does not answer before.
    pub silent: Duration,
}

impl Arbiter {
    pub fn act(&mut self, request: Request) -> Answer {
        let version = self.there.as_ref().map_or(Version::NONE, |there| there.version);
        match request {
            Request::Read(_) => Answer::Found(self.there.clone()),
            Request::CompareAndSwap { expected, new: record } if expected == version => {
                let version = Version(version.0 + 1);
                self.there = Some(Versioned { version, record });
                Answer::Swapped(version)
            }
            Request::CompareAndSwap { .. } => Answer::Conflict(self.there.clone()),
        }
    }
}
