//! The primary's side of a replica set: it runs the VM and releases its output.
//!
//! ```text
//! begin ─▶ Active ─Swap, recorded, Stopped▶ HandedOver ─into_standby▶ Standby
//!            │  ▲
//!            │  └─into_primary─ Standby
//!            └─ a record or a term that is not its own ─▶ Fenced
//! ```
//! What it wants of the arbiter follows from its peers: after every event it compares the record
//! that it would have with the one that is known, and asks for a swap if they differ. Output waits
//! for every standby that the arbiter's record may name, whichever of the known record, the one
//! asked for, and those without an answer that is.
//!
//! - [`events`]: events and actions
//! - `peers`: standbys, their messages, who leaves and why
//! - `recorded`: the arbiter's answers
//! - `swap`: the planned swap
//! - `lag`: how far a standby is behind

pub mod events;
mod lag;
mod peers;
mod recorded;
mod swap;

pub use events::{Action, Event, Lost, News};
pub use lag::Behind;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    Position, Settings,
    arbiter::{MemberId, Record, SetId, Term, Versioned},
    asking::Asking,
};
use lag::Log;
use peers::{Peer, Stage};
use swap::{Step, Swap};

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum State {
    Active,
    HandedOver,
    Fenced,
}

/// What a standby has when it becomes the primary.
pub(super) struct TakenOver {
    pub me: MemberId,
    pub settings: Settings,
    pub known: Versioned,
    pub last: Position,
    pub released: Position,
    /// After a swap: the primary before, and whether its connection is lost.
    pub before: Option<(MemberId, bool)>,
    pub alone: bool,
}

/// The primary's state machine.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Primary {
    me: MemberId,
    settings: Settings,
    state: State,
    /// The term in which this member is active.
    term: Term,
    asking: Asking,
    peers: BTreeMap<MemberId, Peer>,
    log: Log,
    released: Position,
    swap: Option<Swap>,
    unprotecting: bool,
    /// Goes on without the arbiter, as the settings allow.
    alone: bool,
    slow: bool,
    /// When the next heartbeat is due.
    beat: Duration,
}

impl Primary {
    /// Protects the VM at `now`, whose log ends with the record at `last`. The set is new. The
    /// actions start it.
    #[must_use]
    pub fn begin(
        me: MemberId,
        set: SetId,
        settings: Settings,
        last: Position,
        now: Duration,
    ) -> (Self, Vec<Action>) {
        let mut primary = Self::new(me, settings, Asking::new(set, None), last, now);
        primary.released = last;
        let mut out = Vec::new();
        primary.ask(now, &mut out);
        (primary, out)
    }

    fn new(
        me: MemberId,
        settings: Settings,
        asking: Asking,
        last: Position,
        now: Duration,
    ) -> Self {
        Self {
            me,
            settings,
            state: State::Active,
            term: asking.record().map_or_else(Term::default, |record| record.term),
            asking,
            peers: BTreeMap::new(),
            log: Log::new(last),
            released: 0,
            swap: None,
            unprotecting: false,
            alone: false,
            slow: false,
            beat: now.saturating_add(settings.heartbeat),
        }
    }

    /// A standby becomes the primary: see [`Standby::into_primary`](super::Standby::into_primary).
    pub(super) fn taken_over(taken: TakenOver, now: Duration) -> (Self, Vec<Action>) {
        let TakenOver { me, settings, known, last, released, before, alone } = taken;
        let asking = Asking::new(known.record.set, Some(known));
        let mut primary = Self { released, alone, ..Self::new(me, settings, asking, last, now) };
        let mut out = Vec::new();
        if let Some((member, gone)) = before {
            primary.keep(member, gone, now, &mut out);
        }
        primary.go_on(now, &mut out);
        (primary, out)
    }

    /// When [`Event::Tick`] is due.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        if self.state != State::Active {
            return None;
        }
        let retry = self.asking.retry;
        let beat = (!self.peers.is_empty()).then_some(self.beat);
        let peers = self.peers.values().filter_map(|peer| peer.deadline(&self.log, &self.settings));
        peers.chain(retry).chain(beat).min()
    }

    /// The term in which this member is active; 0 until the arbiter has the set's first record.
    #[must_use]
    pub fn term(&self) -> Term {
        self.term
    }

    /// The arbiter's record as this member knows it.
    #[must_use]
    pub fn record(&self) -> Option<&Record> {
        self.asking.record()
    }

    /// Whether this member may still release output: it neither lost nor handed the VM over.
    #[must_use]
    pub fn active(&self) -> bool {
        self.state == State::Active
    }

    /// All output up to this record has been released.
    #[must_use]
    pub fn released(&self) -> Position {
        self.released
    }

    /// The standbys and how far each is behind.
    pub fn standbys(&self, now: Duration) -> impl Iterator<Item = (MemberId, Behind)> {
        self.peers.iter().map(move |(&id, peer)| (id, peer.behind(&self.log, now)))
    }

    /// Handles an event.
    pub fn handle(&mut self, event: Event, now: Duration) -> Vec<Action> {
        let mut out = Vec::new();
        if self.state != State::Active {
            return out;
        }
        self.watch_silence(now, &mut out);
        match event {
            Event::Appended { last, bytes } => self.append(last, bytes, now, &mut out),
            Event::Seeded { member, base } => self.seeded(member, base, now, &mut out),
            Event::Message { from, message } => self.message(from, message, now, &mut out),
            Event::Disconnected { member, why } => {
                self.leave(member, Lost::Disconnected(why), &mut out);
            }
            Event::Suspected { member, why } => self.leave(member, Lost::Suspected(why), &mut out),
            Event::Arbiter(answer) => self.answered(answer, now, &mut out),
            Event::Swap { to } => self.begin_swap(to, &mut out),
            Event::Stopped => self.stopped(&mut out),
            Event::SwapCancelled(why) => self.cancel_swap(why, &mut out),
            Event::Unprotect => {
                self.cancel_swap("the VM is to be protected no longer".into(), &mut out);
                self.unprotecting = true;
            }
            Event::Tick => self.tick(now, &mut out),
        }
        self.go_on(now, &mut out);
        out
    }

    /// What may follow from any event.
    fn go_on(&mut self, now: Duration, out: &mut Vec<Action>) {
        if self.state != State::Active {
            return;
        }
        self.watch_lag(now, out);
        self.go_on_with_swap();
        self.release(out);
        self.end_protection(out);
        self.ask(now, out);
    }

    fn append(&mut self, last: Position, bytes: u64, now: Duration, out: &mut Vec<Action>) {
        let first = self.log.last() + 1;
        if last < first {
            return;
        }
        self.log.append(last, bytes, now, self.settings.max_lag);
        let released = self.released;
        let peers = self.peers.iter().filter(|(_, peer)| !peer.leaving());
        out.extend(peers.map(|(&to, _)| Action::SendRecords { to, first, last, released }));
    }

    /// Members that the arbiter's record may name now, except this one.
    fn in_the_way(&self) -> BTreeSet<MemberId> {
        let records = self.asking.record().into_iter().chain(self.asking.wanted());
        let records = records.chain(&self.asking.late);
        let members = records.flat_map(|r| r.in_sync.iter().chain([&r.active]).copied());
        members.filter(|&id| id != self.me).collect()
    }

    /// Releases what every standby has acked that may be in sync by the arbiter's record, and every
    /// standby that is about to be.
    fn release(&mut self, out: &mut Vec<Action>) {
        let mut waits = self.in_the_way();
        let caught_up = self.peers.iter().filter(|(_, peer)| peer.caught_up(&self.settings));
        waits.extend(caught_up.map(|(&id, _)| id));
        let mut up_to = self.log.last();
        for id in waits {
            match self.peers.get(&id) {
                Some(peer) if !peer.leaving() => up_to = up_to.min(peer.acked(&self.settings)),
                // Nothing goes out while a swap that takes a standby out of the set is open.
                _ if !self.alone => return,
                _ => {}
            }
        }
        if up_to > self.released {
            self.released = up_to;
            out.push(Action::Release(up_to));
        }
    }

    /// The active member and the standbys in sync as they should be.
    fn desired(&self) -> (MemberId, Vec<MemberId>) {
        if let Some(swap) = self.swap.as_ref().filter(|swap| swap.step != Step::Waiting) {
            return (swap.to, vec![self.me]);
        }
        let in_sync = self.peers.iter().filter(|(_, peer)| match peer.stage {
            _ if self.unprotecting => false,
            // It must have all that was released before it was waited for.
            Stage::Joining { .. } => {
                peer.caught_up(&self.settings) && peer.acked(&self.settings) >= self.released
            }
            Stage::InSync => true,
            Stage::Leaving => false,
        });
        (self.me, in_sync.map(|(&id, _)| id).collect())
    }

    /// Asks for the record that should be there, if it is not.
    fn ask(&mut self, now: Duration, out: &mut Vec<Action>) {
        if !self.asking.free(now) {
            return;
        }
        let Some(record) = self.asking.record() else {
            let (set, active) = (self.asking.set, self.me);
            let first = Record { set, term: Term(1), active, in_sync: Vec::new() };
            out.push(Action::Ask(self.asking.swap(first)));
            return;
        };
        let (active, in_sync) = self.desired();
        let new = record.next(active, in_sync);
        let same = new.active == record.active && new.in_sync == record.in_sync;
        // A swap without an answer may still happen, unless the version changes.
        if !same || !self.asking.late.is_empty() {
            out.push(Action::Ask(self.asking.swap(new)));
        }
    }

    fn end_protection(&mut self, out: &mut Vec<Action>) {
        if self.unprotecting && self.in_the_way().is_empty() {
            self.unprotecting = false;
            for (to, _) in std::mem::take(&mut self.peers) {
                let message = super::wire::Message::Goodbye;
                out.extend([Action::Send { to, message }, Action::Close(to)]);
            }
            out.push(Action::Report(News::Unprotected));
        }
    }

    fn fence(&mut self, term: Term, out: &mut Vec<Action>) {
        self.state = State::Fenced;
        out.push(Action::Fence { term });
    }
}
