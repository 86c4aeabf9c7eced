//! The whole model: the members' processes, the connections between them, the arbiter, and what an
//! observer remembers.

use std::{collections::BTreeMap, time::Duration};

use migrate::replication::{
    Commit, Primary, Settings, Standby,
    arbiter::{Answer, MemberId, Record, Request, SetId, Term, Version, Versioned},
};

use super::{link::Pipe, mutation::Mutation};

/// Bounds on what may happen, and how often.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Standbys that are in sync at the beginning.
    pub standbys: usize,
    /// Standbys that may be seeded later, by whichever member is active then.
    pub joins: usize,
    /// Records that are added to the log, by all primaries together.
    pub records: u8,
    /// Planned swaps.
    pub swaps: u8,
    /// Whether the user may end the protection.
    pub unprotect: bool,
    /// When output may leave.
    pub commit: Commit,
    /// Whether a standby may be dropped because it is too slow, which is at any time then.
    pub lag: bool,
    /// Faults in total, of these kinds.
    pub faults: u8,
    /// Processes die.
    pub deaths: bool,
    /// Connections break.
    pub cuts: bool,
    /// A member suspects another one that is there.
    pub alarms: bool,
    /// The arbiter does not answer.
    pub silence: bool,
    /// A copy diverges.
    pub divergence: bool,
    /// The danger that a user may choose.
    pub alone_without_arbiter: bool,
}

/// The model: what the checker explores.
#[derive(Clone, Copy, Debug)]
pub struct Sets {
    pub bounds: Bounds,
    pub mutation: Mutation,
}

/// A record of the input log: the member that made it, and its term.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Entry {
    pub by: u8,
    pub term: u8,
}

/// What a member is.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Role {
    Primary(Box<Primary>),
    Standby(Box<Standby>),
    /// A wrong variant: it was fenced, and goes on.
    Rogue,
    Ended,
}

/// A member's process and its driver.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Member {
    pub role: Role,
    /// The records that it has.
    pub log: Vec<Entry>,
    /// How many of them its guest has executed.
    pub executed: usize,
    /// Its copy is not what the log says.
    pub wrong: bool,
    /// Output up to here is not held: it was released.
    pub gone_out: usize,
    /// The guest is to be stopped.
    pub stopping: bool,
    /// Its request on the way to the arbiter.
    pub request: Option<Request>,
    /// The answer on its way back.
    pub answer: Option<Answer>,
}

/// The rule that was seen broken.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Flaw {
    /// Two members were active in the same term.
    Term,
    /// Output was released that is not the active member's, or not the first one's.
    Two,
    /// Output was left out.
    Lost,
    /// A member took over with less than it had received, or was told a wrong position.
    Unfinished,
    /// A copy that had diverged took over.
    Wrong,
    /// A state machine did what its driver cannot carry out.
    Driver(&'static str),
}

/// A state of the model.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct World {
    /// `None`: the process is dead, or was not started yet.
    pub members: Vec<Option<Member>>,
    /// From the first to the second.
    pub pipes: BTreeMap<(usize, usize), Pipe>,
    pub there: Option<Versioned>,
    /// Swaps that had no answer and may still happen.
    pub late: Vec<Request>,
    /// Output as the world has seen it: for each record the first that was released.
    pub seen: Vec<Entry>,
    /// Which member was active in which term.
    pub active: BTreeMap<Term, usize>,
    pub joined: usize,
    pub records: u8,
    pub swaps: u8,
    pub unprotected: bool,
    pub faults: u8,
    /// The only member that could go on died: nobody has to.
    pub excused: bool,
    /// Rules that were seen broken.
    pub flaws: Vec<Flaw>,
}

/// All times are zero or for ever, so that no state contains the time. Suspicion is a step of its
/// own.
pub const NOW: Duration = Duration::ZERO;

pub const SET: SetId = SetId([9; 16]);

pub fn id(member: usize) -> MemberId {
    MemberId([member as u8 + 1; 16])
}

pub fn member(id: MemberId) -> usize {
    usize::from(id.0[0]) - 1
}

impl Bounds {
    pub fn settings(&self) -> Settings {
        Settings {
            commit: self.commit,
            heartbeat: Duration::MAX,
            misses: 1,
            max_lag: Duration::MAX,
            max_lag_bytes: if self.lag { 0 } else { u64::MAX },
            lag_grace: Duration::ZERO,
            retry: Duration::ZERO,
            alone_without_arbiter: self.alone_without_arbiter,
        }
    }
}

impl Member {
    pub fn new(role: Role) -> Self {
        Self {
            role,
            log: Vec::new(),
            executed: 0,
            wrong: false,
            gone_out: 0,
            stopping: false,
            request: None,
            answer: None,
        }
    }

    pub fn primary(&self) -> Option<&Primary> {
        match &self.role {
            Role::Primary(primary) => Some(primary),
            _ => None,
        }
    }

    pub fn standby(&self) -> Option<&Standby> {
        match &self.role {
            Role::Standby(standby) => Some(standby),
            _ => None,
        }
    }

    /// Whether it could go on one day.
    pub fn there(&self) -> bool {
        !matches!(self.role, Role::Ended) && !self.wrong
    }
}

impl World {
    /// A set with standbys in sync, and nothing in its log.
    pub fn new(model: &Sets) -> Self {
        let bounds = &model.bounds;
        let all = 1 + bounds.standbys + bounds.joins;
        let mut world = Self {
            members: vec![None; all],
            pipes: BTreeMap::new(),
            there: None,
            late: Vec::new(),
            seen: Vec::new(),
            active: BTreeMap::new(),
            joined: 0,
            records: 0,
            swaps: 0,
            unprotected: false,
            faults: 0,
            excused: false,
            flaws: Vec::new(),
        };
        let (primary, actions) = Primary::begin(id(0), SET, bounds.settings(), 0, NOW);
        world.members[0] = Some(Member::new(Role::Primary(primary.into())));
        world.primary_does(model, 0, actions);
        (0..bounds.standbys).for_each(|_| world.seed(model, 0));
        let right = Sets { mutation: Mutation::None, ..*model };
        while let Some(step) = right.inner_steps(&world).first() {
            world.step(&right, *step);
        }
        world
    }

    pub fn get(&self, member: usize) -> Option<&Member> {
        self.members[member].as_ref()
    }

    /// The first record of the arbiter and its followers.
    pub fn arbiter(&mut self, request: &Request, blind: bool) -> Answer {
        let version = self.there.as_ref().map_or(Version::NONE, |there| there.version);
        match request {
            Request::Read(_) => Answer::Found(self.there.clone()),
            Request::CompareAndSwap { expected, new } if *expected == version || blind => {
                let version = Version(version.0 + 1);
                self.there = Some(Versioned { version, record: new.clone() });
                Answer::Swapped(version)
            }
            Request::CompareAndSwap { .. } => Answer::Conflict(self.there.clone()),
        }
    }

    pub fn record(&self) -> Option<&Record> {
        self.there.as_ref().map(|there| &there.record)
    }

    /// Members that the arbiter's record names.
    pub fn named(&self) -> impl Iterator<Item = (usize, &Member)> {
        let names = |n: usize| self.record().is_some_and(|record| record.names(id(n)));
        let members = self.members.iter().enumerate();
        members
            .filter_map(|(n, member)| Some((n, member.as_ref()?)))
            .filter(move |(n, _)| names(*n))
    }

    pub fn flawed(&mut self, flaw: Flaw) {
        if !self.flaws.contains(&flaw) {
            self.flaws.push(flaw);
        }
    }

    /// The members that a member has a connection to.
    pub fn peers(&self, of: usize) -> Vec<usize> {
        self.pipes.keys().filter(|(_, to)| *to == of).map(|(from, _)| *from).collect()
    }

    /// A member closes its end.
    pub fn close(&mut self, from: usize, to: usize) {
        if let Some(out) = self.pipes.get_mut(&(from, to)) {
            out.cut(out.len());
        }
        if let Some(back) = self.pipes.get_mut(&(to, from)) {
            back.shut();
        }
    }
}
