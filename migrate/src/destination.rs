//! The destination's side of a move.
//!
//! ```text
//! Greeting ─Hello▶ Waiting ─Offer, prepared▶ Receiving ─State▶ Applying ─applied▶ Ready ─Commit▶ Running ─LateEnd▶ Ended
//!                                              └─Commit with the state▶ Committing ─applied▶───────┘
//!    any before the commit: link lost, abort, deadline, nonsense, question about this move ─▶ Ended, and it never runs
//! ```
//! A destination that ended before the commit answers questions about that move with *never*, for
//! good; [`Ledger`] keeps the answers.
//!
//! A VM that runs may lack post-copy pages. A lost link then ends nothing: a guest that touches
//! such a page waits until the source is back on a new connection. The destination declares the
//! source dead only if the operator has set a limit to that wait and it is over.
//!
//! - [`events`]: what goes in and comes out
//! - `bounds`: how much a source may send
//! - `error`: why a VM is given up
//! - `lacking`: pages that are missing
//! - `ledger`: the outcomes of moves

mod bounds;
mod error;
pub mod events;
mod lacking;
mod ledger;
mod running;
#[cfg(test)]
mod tests;

pub use bounds::Excess;
pub use error::{Away, GivenUp};
pub use events::{Action, Event, PREPARING, Timeouts};
pub use ledger::Ledger;

use std::time::Duration;

use crate::{
    MoveId, PAGE, ReceiverId,
    brownout::Settled,
    page_set::PageSet,
    wire::{Arrival, Message, Outcome},
};
use bounds::Said;
use lacking::Lacking;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum State {
    Greeting,
    Waiting,
    Preparing,
    Receiving,
    Applying,
    /// As above, and the commit has already arrived.
    Committing,
    Ready,
    Running,
    Ended,
}

/// The destination's state machine, for one move.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Destination {
    state: State,
    me: ReceiverId,
    id: Option<MoveId>,
    deadline: Option<Duration>,
    /// When a silent source is declared dead while the VM runs and lacks pages.
    lost_at: Option<Duration>,
    timeout: Timeouts,
    pages: usize,
    said: Said,
    lacking: Lacking,
    /// Whether forwarded packets may still arrive.
    late: bool,
    linked: bool,
    /// How the guest returned to full speed, once the destination knows.
    settled: Option<Settled>,
}

impl Destination {
    /// A state machine for a connection that was accepted at `now`.
    #[must_use]
    pub fn new(me: ReceiverId, timeout: Timeouts, now: Duration) -> Self {
        Self {
            state: State::Greeting,
            me,
            id: None,
            deadline: Some(now + timeout.silence),
            lost_at: None,
            timeout,
            pages: 0,
            said: Said::default(),
            lacking: Lacking::none(0),
            late: true,
            linked: true,
            settled: None,
        }
    }

    /// The move's number, once the source has sent it.
    #[must_use]
    pub fn id(&self) -> Option<MoveId> {
        self.id
    }

    /// When [`Event::Tick`] is due.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        [self.deadline, self.lost_at].into_iter().flatten().min()
    }

    /// Whether pages may arrive now.
    #[must_use]
    pub fn receives(&self) -> bool {
        self.state == State::Receiving || self.state == State::Running && !self.lacking.is_empty()
    }

    /// Pages that are missing: the driver puts these in place, and writes all others.
    #[must_use]
    pub fn lacking(&self) -> &PageSet {
        self.lacking.pages()
    }

    /// How many pages are missing.
    #[must_use]
    pub fn lacks(&self) -> usize {
        self.lacking.len()
    }

    /// Whether the commit has arrived: this move's VM is here.
    #[must_use]
    pub fn runs(&self) -> bool {
        self.state == State::Running
    }

    /// How long the guest has waited for post-copy pages, including the wait under way.
    #[must_use]
    pub fn waited(&self, now: Duration) -> Duration {
        self.lacking.waited(now)
    }

    /// What post-copy cost the guest, once all pages are here.
    #[must_use]
    pub fn arrival(&self) -> Arrival {
        self.lacking.arrival()
    }

    /// Whether nothing more will arrive.
    #[must_use]
    pub fn ended(&self) -> bool {
        self.state == State::Ended
    }

    /// Handles an event.
    pub fn handle(&mut self, event: Event, now: Duration) -> Vec<Action> {
        if matches!(event, Event::Message(_) | Event::Pages(_)) && self.deadline.is_some() {
            self.heard(now);
        }
        match (self.state, event) {
            (State::Ended, _) => Vec::new(),
            (State::Running, event) => self.running(event, now),
            (_, Event::LinkLost(why)) => self.give_up(Away::Link(why), false),
            (_, Event::Asked) => self.give_up(GivenUp::Asked, false),
            (_, Event::Tick) => match self.deadline {
                Some(at) if now >= at => self.give_up(Away::Silent, true),
                Some(_) | None => Vec::new(),
            },
            (_, Event::Message(Message::Abort(why))) => self.give_up(GivenUp::Aborted(why), false),
            (State::Greeting, Event::Message(Message::Hello(id))) => {
                self.id = Some(id);
                self.state = State::Waiting;
                vec![Action::Send(Message::Welcome(id, self.me))]
            }
            (State::Waiting, Event::Message(Message::Offer(offer)))
                if offer.receiver != self.me =>
            {
                self.give_up(GivenUp::Replayed, true)
            }
            (State::Waiting, Event::Message(Message::Offer(offer))) => {
                self.state = State::Preparing;
                self.pages = (offer.memory_size / PAGE as u64) as usize;
                // Making a VM takes the destination's time, not the source's.
                self.deadline = None;
                vec![Action::Prepare(offer)]
            }
            (State::Preparing, Event::Prepared(Ok(accepted))) => {
                self.state = State::Receiving;
                // Not before the offer is judged: its size is an unverified claim.
                self.lacking = Lacking::none(self.pages);
                self.deadline = Some(now + self.timeout.silence);
                vec![Action::Send(Message::Accept(accepted))]
            }
            (State::Preparing, Event::Prepared(Err(why))) => {
                self.state = State::Ended;
                let discard = Action::Discard(GivenUp::Refused(why.clone()));
                vec![Action::Send(Message::Refuse(why)), discard, Action::End]
            }
            (State::Receiving, Event::Pages(runs) | Event::Message(Message::Zero(runs))) => {
                self.lacking.came(&runs);
                match self.said.named(&runs, self.pages) {
                    Ok(()) => Vec::new(),
                    Err(why) => self.give_up(why, true),
                }
            }
            (State::Receiving, Event::Message(Message::Follow(runs))) => {
                self.lacking.add(&runs);
                match self.said.named(&runs, self.pages) {
                    Ok(()) => vec![Action::Forget(runs)],
                    Err(why) => self.give_up(why, true),
                }
            }
            (State::Receiving, Event::Forgot(Ok(()))) => Vec::new(),
            (_, Event::Forgot(Err(why))) => self.give_up(GivenUp::Here(why), true),
            (State::Receiving, Event::Message(Message::RoundEnd(n))) => match self.said.round() {
                Ok(()) => vec![Action::Send(Message::RoundDone(n))],
                Err(why) => self.give_up(why, true),
            },
            (State::Receiving, Event::Message(Message::State(state))) => {
                self.state = State::Applying;
                self.deadline = None;
                vec![Action::Apply(state)]
            }
            (State::Receiving, Event::Message(Message::SwitchHint(invariant)))
                if self.said.switch_hint() =>
            {
                vec![Action::SwitchHint(invariant)]
            }
            (State::Receiving, Event::Message(Message::Stopping)) if self.said.stopping() => {
                vec![Action::Prewake]
            }
            (State::Receiving, Event::Message(Message::Commit(id, state)))
                if self.id == Some(id) && !state.is_empty() =>
            {
                self.state = State::Committing;
                self.deadline = None;
                vec![Action::Apply(state)]
            }
            (State::Committing, Event::Applied(Ok(()))) => self.run(now),
            (State::Committing, Event::Applied(Err(why))) => {
                self.state = State::Ended;
                let never = self.id.map(|id| Action::Send(Message::Outcome(id, Outcome::Never)));
                never
                    .into_iter()
                    .chain([Action::Discard(GivenUp::Here(why)), Action::End])
                    .collect()
            }
            (State::Applying, Event::Applied(Ok(()))) => {
                self.state = State::Ready;
                self.deadline = Some(now + self.timeout.silence);
                vec![Action::Send(Message::Ready)]
            }
            (State::Applying, Event::Applied(Err(why))) => self.give_up(GivenUp::Here(why), true),
            (State::Ready, Event::Message(Message::Commit(id, state)))
                if self.id == Some(id) && state.is_empty() =>
            {
                self.run(now)
            }
            (_, Event::Message(got)) => self.give_up(GivenUp::Unexpected(got.kind()), true),
            (_, Event::Pages(_)) => self.give_up(GivenUp::UnexpectedPages, true),
            // An answer to an action that a failure has overtaken, or an event that concerns only a
            // VM that runs.
            (
                _,
                Event::Prepared(_)
                | Event::Forgot(Ok(()))
                | Event::Applied(_)
                | Event::Runs(_)
                | Event::Settled(_)
                | Event::Fault(_)
                | Event::Rejoined
                | Event::VmEnded,
            ) => Vec::new(),
        }
    }

    fn run(&mut self, now: Duration) -> Vec<Action> {
        self.state = State::Running;
        self.deadline = None;
        if !self.lacking.is_empty() {
            self.heard(now);
        }
        vec![Action::Run]
    }

    /// The source has sent something: its silence is measured from now.
    fn heard(&mut self, now: Duration) {
        self.deadline = Some(now + self.timeout.silence);
        if self.state == State::Running {
            self.lost_at = self.timeout.lost.map(|lost| now + lost);
        }
    }

    fn end(&mut self) -> Vec<Action> {
        self.state = State::Ended;
        vec![Action::End]
    }

    fn give_up(&mut self, why: impl Into<GivenUp>, tell: bool) -> Vec<Action> {
        let why = why.into();
        self.state = State::Ended;
        let mut actions = Vec::new();
        if tell {
            actions.push(Action::Send(Message::Abort(why.to_string())));
        }
        actions.extend([Action::Discard(why), Action::End]);
        actions
    }
}
