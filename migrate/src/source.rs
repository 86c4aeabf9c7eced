//! The source's side of a move.
//!
//! ```text
//! Greeting ─Welcome▶ Offering ─Accept▶ Copying ─rest fits▶ Stopping ─stopped▶ Finishing ─sent▶ AwaitReady
//!                                         │                  ▲                       │ held         │ Ready
//!                                         └─rest follows▶ Announcing                 │              │
//!    any of these: link lost, refusal, abort, cancel, deadline ─▶ Ended, the VM      ▼              ▼
//!                                                                 runs on here       └──────┬───────┘
//!      Ended ◀─Settled─ Settling ◀─Whole─ Following ◀─Running─ Committed ─link lost▶ Unknown
//!                                           └──────link lost, and back: Lacks────────▶│◀
//!                                                                                     │ Outcome
//!                                       Ran: Ended, it runs there;  Never: Ended, it runs on here
//! ```
//! From `Committed` on there is one way back only: the destination's word that it never ran the VM and never will (rule R2).
//!
//! What is sent last is confirmed by `Ready` before the commit goes, or, if it is little, goes together with the commit: a way there and back less of
//! blackout, in which a destination that dies takes the VM with it for as long as that little is under way.
//!
//! - [`events`]: what goes in and comes out
//! - `deciding`: when to switch
//! - `after_commit`: what is different once the commit is sent
//! - `following`: pages that go after it
//! - `settling`: the wait for the destination's word on the guest's speed

mod after_commit;
mod deciding;
pub mod events;
mod following;
mod settling;

pub use events::{Action, Ended, Event, Failure, Mode, Sent, Settings, Stopped};

use std::time::Duration;

use crate::{
    MoveId, PAGE, ReceiverId,
    brownout::Settled,
    offer::Offer,
    pages::Pages,
    predict::Measured,
    report::{Moments, Phases, Report},
    rounds::Rounds,
    wire::{Arrival, Message, Started},
};
use following::Following;

#[cfg(test)]
mod tests;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum State {
    Greeting,
    Offering,
    /// Pages of a round are on their way.
    Copying,
    /// Waiting for `RoundDone`.
    Confirming,
    /// Waiting to hear how much is dirty.
    Peeking,
    /// Waiting for the dirty set.
    Looking,
    /// Waiting for `RoundDone` after the pages that are to follow were named.
    Announcing,
    Stopping,
    Finishing,
    AwaitReady,
    Committed,
    /// The destination runs the VM; pages follow.
    Following,
    /// It has all memory; it has yet to say when the guest is at its speed.
    Settling,
    /// The link is lost after the commit; the destination is asked.
    Unknown,
    /// The destination, on a new connection, says what it lacks.
    Rejoining,
    Ended,
}

impl State {
    const fn doing(self) -> &'static str {
        match self {
            Self::Greeting => "greeting",
            Self::Offering => "offering the VM",
            Self::Copying | Self::Confirming | Self::Peeking | Self::Looking | Self::Announcing => {
                "copying memory"
            }
            Self::Stopping => "stopping the guest",
            Self::Finishing | Self::AwaitReady => "sending the last pages and the state",
            Self::Committed | Self::Unknown => "waiting for the VM to run there",
            Self::Following | Self::Rejoining => "sending the memory that follows",
            Self::Settling => "waiting for the guest to be at its speed there",
            Self::Ended => "done",
        }
    }
}

/// The source's machine.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Source {
    id: MoveId,
    receiver: ReceiverId,
    offer: Box<Offer>,
    settings: Settings,
    state: State,
    rounds: Rounds,
    measured: Measured,
    /// Whether the destination can take pages that follow.
    can_follow: bool,
    /// Pages that the destination was told are going to follow.
    announced: Option<Pages>,
    following: Option<Following>,
    /// Whether the destination has said that it runs the VM.
    ran: bool,
    /// What it lacks, as far as it has said so on a new connection.
    lacks: Pages,
    began: Duration,
    asked: Duration,
    deadline: Option<Duration>,
    /// The round that was sent last.
    last: Sent,
    moments: Moments,
    numbers: Numbers,
    dont_care: Pages,
    said_brace: bool,
    /// Rounds since then.
    braced: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
struct Numbers {
    bytes: u64,
    full: u64,
    zero: u64,
    last: u64,
    follow: u64,
    quiescent: bool,
    predicted: Duration,
    started: Started,
    arrival: Arrival,
    settled: Option<Settled>,
    /// When it was known that the VM is there with all its memory.
    whole: Option<Duration>,
}

impl Source {
    /// A move of a VM as offered, begun at `now`, over a connection that stands. The actions open it.
    #[must_use]
    pub fn begin(
        id: MoveId,
        offer: Offer,
        settings: Settings,
        now: Duration,
    ) -> (Self, Vec<Action>) {
        let pages = (offer.memory_size / PAGE as u64) as usize;
        let source = Self {
            id,
            receiver: ReceiverId::default(),
            offer: Box::new(offer),
            settings,
            state: State::Greeting,
            rounds: Rounds::new(pages, settings.policy),
            measured: Measured::new(settings.quiesce_expected),
            can_follow: false,
            announced: None,
            following: None,
            ran: false,
            lacks: Pages::none(pages),
            began: now,
            asked: now,
            deadline: Some(now + settings.answer),
            last: Sent::default(),
            moments: Moments::default(),
            numbers: Numbers::default(),
            dont_care: Pages::none(pages),
            said_brace: false,
            braced: 0,
        };
        (source, vec![Action::Send(Message::Hello(id))])
    }

    /// When [`Event::Tick`] is due.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        let over = self.committed() || self.state == State::Ended;
        let in_all = self.settings.timeout.filter(|_| !over);
        [self.deadline, in_all].into_iter().flatten().min()
    }

    /// Whether the commit has been given out.
    #[must_use]
    pub fn committed(&self) -> bool {
        use State::{Committed, Following, Rejoining, Settling, Unknown};
        matches!(self.state, Committed | Unknown | Following | Rejoining | Settling)
    }

    /// What it is doing, for people.
    #[must_use]
    pub fn doing(&self) -> &'static str {
        self.state.doing()
    }

    /// Rounds done so far.
    #[must_use]
    pub fn rounds(&self) -> u32 {
        self.rounds.done()
    }

    /// Bytes sent so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.numbers.bytes
    }

    /// The blackout that was expected at the last look at what is dirty, did all that was left go into it.
    #[must_use]
    pub fn predicted(&self) -> Duration {
        self.numbers.predicted
    }

    /// Takes an event.
    pub fn handle(&mut self, event: Event, now: Duration) -> Vec<Action> {
        if self.state == State::Ended {
            return Vec::new();
        }
        if self.committed() {
            self.after_commit(event, now)
        } else {
            self.before_commit(event, now)
        }
    }

    fn before_commit(&mut self, event: Event, now: Duration) -> Vec<Action> {
        match (self.state, event) {
            (_, Event::LinkLost(why)) => {
                self.fail(Failure::Link { during: self.state.doing(), why }, false)
            }
            (_, Event::Cancel(why)) => self.fail(Failure::Cancelled(why), true),
            (_, Event::Failed(why)) => self.fail(Failure::Here(why), true),
            (_, Event::Tick) => self.tick(now),
            (_, Event::Progress) => {
                self.deadline = self.deadline.map(|at| at.max(now + self.settings.answer));
                Vec::new()
            }
            (_, Event::Message(Message::Abort(why))) => self.fail(Failure::Aborted(why), false),
            (State::Greeting | State::Offering, Event::Message(Message::Refuse(why))) => {
                self.fail(Failure::Refused(why), false)
            }
            (State::Greeting, Event::Message(Message::Welcome(id, receiver))) if id == self.id => {
                self.measured.answered(now.saturating_sub(self.asked));
                self.receiver = receiver;
                self.offer.receiver = receiver;
                self.asked = now;
                self.to(State::Offering, Some(now + self.settings.answer));
                vec![Action::Send(Message::Offer(self.offer.clone()))]
            }
            (State::Offering, Event::Message(Message::Preparing)) => {
                // Only a process that runs says so; whether it gets anywhere is another matter.
                let most = self.asked + self.settings.prepare;
                self.deadline = Some(most.min(now + self.settings.answer));
                Vec::new()
            }
            (State::Offering, Event::Message(Message::Accept(accepted))) => {
                self.can_follow = accepted.follow;
                self.measured.applied(Duration::from_nanos(accepted.apply_ns));
                self.accepted(now)
            }
            (_, Event::GivenUp(pages)) => {
                self.dont_care = pages;
                Vec::new()
            }
            (State::Copying, Event::Sent(sent)) => {
                self.count(sent);
                self.to(State::Confirming, Some(now + self.settings.answer));
                self.last = sent;
                Vec::new()
            }
            (State::Confirming, Event::Message(Message::RoundDone(n)))
                if n == self.rounds.done() =>
            {
                // The destination did something else besides in the first urgent round.
                if self.braced != 1 {
                    let took = now.saturating_sub(self.asked + self.last.idle);
                    self.measured.round(self.last.bytes, took);
                }
                self.rounds.sent();
                if self.braced == 0 && self.hurries() {
                    self.to(State::Peeking, None);
                    return vec![Action::PeekDirty];
                }
                self.take_dirty()
            }
            (State::Peeking, Event::Peeked { dirty, dont_care }) => {
                self.peeked(&dirty, dont_care, now)
            }
            (State::Looking, Event::Dirty { dirty, dont_care }) => {
                let more = self
                    .rounds
                    .changed(&dirty, self.measured.time_for(dirty.len()).unwrap_or_default());
                self.dont_care = dont_care;
                self.decide(more, now)
            }
            (State::Announcing, Event::Sent(sent)) => {
                self.count(sent);
                self.deadline = Some(now + self.settings.answer);
                Vec::new()
            }
            (State::Announcing, Event::Message(Message::RoundDone(n)))
                if n == self.rounds.done() =>
            {
                self.measured.answered(now.saturating_sub(self.asked));
                self.stop()
            }
            (State::Stopping, Event::Stopped(stopped)) => self.stopped(&stopped),
            (State::Finishing, Event::Sent(sent)) => {
                self.count(sent);
                self.numbers.last = sent.full;
                self.moments.sent = now;
                self.to(State::AwaitReady, Some(now + self.settings.answer));
                Vec::new()
            }
            (State::AwaitReady, Event::Message(Message::Ready)) => {
                self.moments.ready = Some(now);
                self.commit(now)
            }
            (State::Finishing, Event::Held) => self.commit(now),
            (state, Event::Message(got)) => {
                let got = format!("{:?}", got.kind());
                self.fail(Failure::Unexpected { got, during: state.doing() }, true)
            }
            // An answer to an action that a failure has overtaken.
            _ => Vec::new(),
        }
    }

    fn tick(&mut self, now: Duration) -> Vec<Action> {
        let during = self.state.doing();
        if let Some(timeout) = self.settings.timeout
            && now >= timeout
        {
            return self.fail(Failure::Timeout { timeout, during }, true);
        }
        match self.deadline {
            Some(at) if now >= at => self.fail(Failure::Silent { during }, true),
            _ => Vec::new(),
        }
    }

    fn accepted(&mut self, now: Duration) -> Vec<Action> {
        match self.settings.mode {
            Mode::Hybrid if !self.can_follow => self.fail(Failure::CannotFollow, true),
            Mode::StopAndCopy => {
                let mut actions = vec![Action::StartLog];
                actions.extend(self.stop());
                actions
            }
            _ => {
                let mut actions = vec![Action::StartLog];
                actions.extend(self.next_round(now));
                actions
            }
        }
    }

    fn stop(&mut self) -> Vec<Action> {
        self.to(State::Stopping, None);
        let brace = self.brace();
        let patience = self.settings.quiesce;
        let stop = [Action::Send(Message::Stopping), Action::Stop { patience }];
        brace.into_iter().chain(stop).collect()
    }

    /// What comes before the switch, once.
    fn brace(&mut self) -> Option<Action> {
        (!std::mem::replace(&mut self.said_brace, true)).then_some(Action::Brace)
    }

    fn stopped(&mut self, guest: &Stopped) -> Vec<Action> {
        let Stopped { requested, stopped, .. } = *guest;
        self.moments = Moments { requested, stopped, ..Moments::default() };
        self.numbers.quiescent = guest.quiescent;
        self.to(State::Finishing, None);
        let mut pages = self.rounds.last(&guest.dirty, &guest.dont_care);
        let mut follow = Pages::none(pages.limit());
        if let Some(announced) = &self.announced {
            let mut now = self.rounds.hottest(&pages, self.room_for_hot());
            let needed = guest.needed.iter().copied().chain(0..self.settings.first_that_follows);
            needed.filter(|page| pages.contains(*page)).for_each(|page| now.insert(page));
            // All that the destination does not have: what was announced, and what changed since, but for what goes now.
            let mut rest = announced.clone();
            rest.add(&pages);
            rest.take_out(&now);
            self.numbers.predicted = self.expected(now.len());
            self.numbers.follow = rest.len() as u64;
            follow.add(&rest);
            follow.take_out(announced);
            self.following = Some(Following::new(rest));
            pages = now;
        }
        let hold = self.goes_together(pages.len());
        vec![Action::SendLast { pages, follow, hold }]
    }

    /// The point of no return.
    fn commit(&mut self, now: Duration) -> Vec<Action> {
        self.moments.committed = now;
        self.to(State::Committed, Some(now + self.settings.answer));
        vec![Action::Fence, Action::Commit(self.id)]
    }

    fn next_round(&mut self, now: Duration) -> Vec<Action> {
        self.asked = now;
        self.to(State::Copying, None);
        let pages = self.rounds.next(&self.dont_care);
        vec![Action::SendPages { round: self.rounds.done(), pages }]
    }

    fn fail(&mut self, failure: Failure, tell: bool) -> Vec<Action> {
        self.to(State::Ended, None);
        let mut actions = vec![Action::RunHere];
        if tell {
            actions.push(Action::Send(Message::Abort(failure.to_string())));
        }
        actions.push(Action::End(Ended::Failed(failure)));
        actions
    }

    fn to(&mut self, state: State, deadline: Option<Duration>) {
        self.state = state;
        self.deadline = deadline;
    }

    fn count(&mut self, sent: Sent) {
        self.numbers.bytes += sent.bytes;
        self.numbers.full += sent.full;
        self.numbers.zero += sent.zero;
    }

    /// Pages that were not sent as the guest does not care for what is in them. Of a move that was made: before that the guest may change its mind.
    #[must_use]
    pub fn left_out(&self) -> Pages {
        let mut pages = self.rounds.left().clone();
        if let Some(announced) = &self.announced {
            // Those went when they had been promised.
            pages.take_out(announced);
        }
        pages
    }

    /// What the move cost. `None` before the VM is there with all its memory. [`Report::bytes_left_out`] is for whoever has the memory.
    #[must_use]
    pub fn report(&self) -> Option<Report> {
        let n = self.numbers;
        let whole = n.whole?;
        let phases = self.moments.phases(&n.started);
        let ns = |from: Duration, to: Duration| to.saturating_sub(from).as_nanos() as u64;
        let ran = self.moments.running.unwrap_or(self.moments.committed);
        Some(Report {
            blackout_ns: phases.as_ref().map(Phases::blackout_ns),
            predicted_blackout_ns: n.predicted.as_nanos() as u64,
            total_ns: ns(self.began, whole),
            bytes_sent: n.bytes,
            rounds: self.rounds.done(),
            pages_sent: n.full,
            last_pages: n.last,
            pages_zero: n.zero,
            pages_dont_care: self.left_out().len() as u64,
            bytes_left_out: None,
            pages_following: n.follow,
            following_ns: if n.follow > 0 { ns(ran, whole) } else { 0 },
            pages_waited_for: n.arrival.waited.into(),
            waited_ns: n.arrival.waited_ns,
            worst_wait_ns: n.arrival.worst_ns,
            quiescent: n.quiescent,
            phases,
            apply_ns: self.moments.running.map(|_| n.started.apply_ns),
            run_ns: self.moments.running.map(|_| n.started.run_ns),
            ..settling::told(n.settled)
        })
    }
}
