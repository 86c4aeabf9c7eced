//! Simulated time: what happens next, and what must hold after it.

use std::{collections::BTreeMap, fmt::Write, time::Duration};

use fastrand::Rng;
use migrate::replication::{
    Commit, Primary, Settings,
    arbiter::{Answer, Request},
    primary, standby,
};

use super::{
    FAULTS, Seen,
    host::{Arbiter, Entry, Host, Role, SET, id},
    net::Net,
};

/// Most members of a run, dead ones included.
const MEMBERS: usize = 8;

/// What happens at a moment.
#[derive(Debug)]
pub enum What {
    /// A message arrives.
    Arrives {
        from: usize,
        to: usize,
        epoch: u32,
        bytes: Vec<u8>,
    },
    /// A member finds out that a connection is closed.
    Ends {
        from: usize,
        to: usize,
        epoch: u32,
    },
    /// A copy has executed a record.
    Executed(usize),
    /// An active guest goes on.
    Runs(usize),
    /// A deadline may be over.
    Tick(usize),
    /// A request reaches the arbiter. Its answer may be lost.
    Acts {
        member: usize,
        number: u64,
        request: Request,
        heard: bool,
    },
    Answers {
        member: usize,
        number: u64,
        answer: Answer,
    },
    /// The guest is stopped for a swap.
    Stopped(usize),
    /// A copy of the active member's VM begins; then it is there.
    Copies,
    Seeded {
        by: usize,
        base: usize,
    },
    Swap,
    Fault,
}

pub struct Sim {
    pub now: Duration,
    queue: BTreeMap<(Duration, u64), What>,
    order: u64,
    pub rng: Rng,
    pub settings: Settings,
    pub hosts: Vec<Option<Host>>,
    pub net: Net,
    pub arbiter: Arbiter,
    pub seen: Vec<Entry>,
    terms: BTreeMap<u64, usize>,
    pub numbers: u32,
    pub excused: bool,
    pub count: Seen,
}

pub fn us(us: u64) -> Duration {
    Duration::from_micros(us)
}

impl Sim {
    pub fn new(seed: u64, commit: Commit, faults: usize) -> Self {
        let settings = Settings {
            commit,
            heartbeat: us(1000),
            misses: 5,
            max_lag: us(8000),
            max_lag_bytes: 1 << 20,
            lag_grace: us(4000),
            retry: us(1500),
            alone_without_arbiter: false,
        };
        let (machine, actions) = Primary::begin(id(0), SET, settings, 0, Duration::ZERO);
        let primary = Host::new(Role::Primary(machine.into()), Vec::new(), 20);
        let mut sim = Self {
            now: Duration::ZERO,
            queue: BTreeMap::new(),
            order: 0,
            rng: Rng::with_seed(seed),
            settings,
            hosts: vec![Some(primary)],
            net: Net::default(),
            arbiter: Arbiter::default(),
            seen: Vec::new(),
            terms: BTreeMap::new(),
            numbers: 0,
            excused: false,
            count: Seen::default(),
        };
        sim.primary_does(0, actions);
        sim.at(us(1), What::Runs(0));
        sim.at(us(500), What::Copies);
        for _ in 0..faults {
            let at = us(sim.rng.u64(5000..FAULTS.as_micros() as u64));
            sim.at(at, What::Fault);
        }
        let swap = us(sim.rng.u64(8000..60_000));
        sim.at(swap, What::Swap);
        sim
    }

    pub fn at(&mut self, time: Duration, what: What) {
        self.order += 1;
        self.queue.insert((time.max(self.now), self.order), what);
    }

    /// After a drawn time in µs.
    pub fn after(&mut self, range: std::ops::Range<u64>, what: What) {
        let at = self.now + us(self.rng.u64(range));
        self.at(at, what);
    }

    pub fn run(&mut self, until: Duration) {
        while let Some(next) = self.queue.first_entry() {
            let (time, _) = *next.key();
            if time > until {
                break;
            }
            let what = next.remove();
            self.now = time;
            match self.frozen(&what) {
                Some(thaws) => self.at(thaws, what),
                None => self.happens(what),
            }
        }
        self.now = until;
    }

    /// Until when the process is frozen in which it would happen.
    fn frozen(&self, what: &What) -> Option<Duration> {
        let member = match what {
            What::Arrives { to, .. } | What::Ends { to, .. } => *to,
            What::Executed(n) | What::Runs(n) | What::Tick(n) | What::Stopped(n) => *n,
            What::Answers { member, .. } | What::Seeded { by: member, .. } => *member,
            What::Acts { .. } | What::Copies | What::Swap | What::Fault => return None,
        };
        self.host(member).map(|host| host.frozen).filter(|thaws| *thaws > self.now)
    }

    pub fn host(&self, n: usize) -> Option<&Host> {
        self.hosts[n].as_ref()
    }

    fn happens(&mut self, what: What) {
        match what {
            What::Arrives { from, to, epoch, bytes } => {
                if self.net.arrives((from, to), epoch) {
                    self.arrives(from, to, &bytes);
                }
            }
            What::Ends { from, to, epoch } => {
                if self.net.arrives((from, to), epoch) {
                    self.net.cut(from, to);
                    let why = || "closed".to_owned();
                    let event = primary::Event::Disconnected { member: id(from), why: why() };
                    self.event(to, event, Some(standby::Event::Disconnected(why())));
                }
            }
            What::Executed(n) => self.executed(n),
            What::Runs(n) => self.runs(n),
            What::Tick(n) => {
                let Some(host) = &mut self.hosts[n] else { return };
                host.tick = None;
                if host.deadline().is_some_and(|at| at <= self.now) {
                    self.event(n, primary::Event::Tick, Some(standby::Event::Tick));
                }
                self.plan(n);
            }
            What::Acts { member, number, request, heard } => {
                let answer = self.arbiter.act(request);
                self.check();
                self.excuse();
                if heard {
                    self.after(50..900, What::Answers { member, number, answer });
                }
            }
            What::Answers { member, number, answer } => {
                let open = self.hosts[member].as_mut().filter(|h| h.request == Some(number));
                if let Some(host) = open {
                    host.request = None;
                    let other = standby::Event::Arbiter(answer.clone());
                    self.event(member, primary::Event::Arbiter(answer), Some(other));
                }
            }
            What::Stopped(n) => {
                self.hosts[n].as_mut().into_iter().for_each(|host| host.stopped = true);
                self.event(n, primary::Event::Stopped, None);
            }
            What::Copies => self.copies(),
            What::Seeded { by, base } => self.seeded(by, base),
            What::Swap => {
                let active = self.the_active();
                let to = active.and_then(|n| self.net.peers(n).first().copied());
                if let (Some(n), Some(to)) = (active, to) {
                    self.event(n, primary::Event::Swap { to: id(to) }, None);
                }
            }
            What::Fault => self.fault(),
        }
    }

    /// Sees to it that the machine is called when its deadline is over.
    pub fn plan(&mut self, n: usize) {
        let Some(host) = &mut self.hosts[n] else { return };
        let Some(deadline) = host.deadline() else { return };
        if host.tick.is_none_or(|tick| deadline < tick) {
            host.tick = Some(deadline);
            self.at(deadline, What::Tick(n));
        }
    }

    /// The member with the highest term of those that are active.
    pub fn the_active(&self) -> Option<usize> {
        let term = |n: &usize| self.host(*n).and_then(Host::active).map(|p| p.term());
        (0..self.hosts.len()).filter(|n| term(n).is_some()).max_by_key(term)
    }

    fn copies(&mut self) {
        let alone = self.arbiter.there.as_ref().is_some_and(|it| it.record.in_sync.is_empty());
        if let Some(by) = self.the_active().filter(|n| alone && self.net.peers(*n).is_empty()) {
            let base = self.host(by).map_or(0, |host| host.log.len());
            if self.hosts.len() < MEMBERS {
                self.after(500..1500, What::Seeded { by, base });
            }
        }
        self.after(2000..4000, What::Copies);
    }

    /// What must hold whenever something was released or recorded.
    pub fn check(&self) {
        let Some(there) = &self.arbiter.there else { return };
        for (n, host) in self.hosts.iter().enumerate() {
            let Some(host) = host.as_ref().filter(|host| host.there()) else { continue };
            if there.record.names(id(n)) {
                let executed = self.settings.commit == Commit::Executed;
                let has = if executed { host.executed } else { host.log.len() };
                let behind = host.log.get(..self.seen.len().min(has)) == Some(&self.seen[..]);
                assert!(behind, "output is out that member {n} lacks\n{}", self.state());
            }
        }
    }

    /// Two members are never active in the same term.
    pub fn acts_in_term(&mut self, n: usize) {
        let term = self.host(n).and_then(Host::active).map_or(0, |primary| primary.term().0);
        if term > 0 {
            let first = *self.terms.entry(term).or_insert(n);
            assert_eq!(first, n, "two are active in term {term}\n{}", self.state());
        }
    }

    pub fn outputs(&self) -> usize {
        self.seen.len()
    }

    pub fn excused(&self) -> bool {
        self.excused
    }

    pub fn active(&self) -> usize {
        self.hosts.iter().flatten().filter(|host| host.active().is_some()).count()
    }

    pub fn count(&self, seen: &mut Seen) {
        seen.takeovers += self.count.takeovers;
        seen.swaps += self.count.swaps;
        seen.fenced += self.count.fenced;
        seen.dropped += self.count.dropped;
        seen.joined += self.count.joined;
        seen.repeated += self.count.repeated;
    }

    /// For people.
    pub fn state(&self) -> String {
        let mut text =
            format!("at {:?}: {} outputs, {:?}\n", self.now, self.seen.len(), self.arbiter);
        for (n, host) in self.hosts.iter().enumerate() {
            let Some(host) = host else { continue };
            let (log, executed, out) = (host.log.len(), host.executed, host.gone_out);
            let _ =
                writeln!(text, "{n}: log {log}, executed {executed}, out {out}, {:?}", host.role);
        }
        text
    }
}
