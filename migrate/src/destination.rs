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
//! - `lacking`: pages that are missing
//! - `ledger`: the outcomes of moves

mod bounds;
pub mod events;
mod lacking;
mod ledger;
#[cfg(test)]
mod tests;

pub use events::{Action, Event, PREPARING, Timeouts};
pub use ledger::Ledger;

use std::time::Duration;

use crate::{
    MoveId, PAGE, ReceiverId,
    brownout::Settled,
    pages::Pages,
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
    pub fn lacking(&self) -> &Pages {
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
            (_, Event::LinkLost(why)) => self.give_up(why, false),
            (_, Event::Asked) => {
                self.give_up("the source asked for the outcome before it committed".into(), false)
            }
            (_, Event::Tick) => match self.deadline {
                Some(at) if now >= at => self.give_up("the source fell silent".into(), true),
                Some(_) | None => Vec::new(),
            },
            (_, Event::Message(Message::Abort(why))) => self.give_up(why, false),
            (State::Greeting, Event::Message(Message::Hello(id))) => {
                self.id = Some(id);
                self.state = State::Waiting;
                vec![Action::Send(Message::Welcome(id, self.me))]
            }
            (State::Waiting, Event::Message(Message::Offer(offer)))
                if offer.receiver != self.me =>
            {
                self.give_up(
                    "the offer was made to another receiver, so it is a replay".into(),
                    true,
                )
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
                let reason = why.to_string();
                vec![Action::Send(Message::Refuse(why)), Action::Discard(reason), Action::End]
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
            (_, Event::Forgot(Err(why))) => self.give_up(why, true),
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
                never.into_iter().chain([Action::Discard(why), Action::End]).collect()
            }
            (State::Applying, Event::Applied(Ok(()))) => {
                self.state = State::Ready;
                self.deadline = Some(now + self.timeout.silence);
                vec![Action::Send(Message::Ready)]
            }
            (State::Applying, Event::Applied(Err(why))) => self.give_up(why, true),
            (State::Ready, Event::Message(Message::Commit(id, state)))
                if self.id == Some(id) && state.is_empty() =>
            {
                self.run(now)
            }
            (_, Event::Message(got)) => {
                self.give_up(format!("{:?} came at the wrong time", got.kind()), true)
            }
            (_, Event::Pages(_)) => self.give_up("pages came at the wrong time".into(), true),
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

    /// No page is missing any more, or none will arrive: the guest waits for nothing.
    fn wait_no_more(&mut self) {
        (self.deadline, self.lost_at) = (None, None);
    }

    /// The VM is here. Nothing that a peer sends changes that.
    fn running(&mut self, event: Event, now: Duration) -> Vec<Action> {
        match event {
            Event::Runs(started) => vec![Action::Send(Message::Running(started))],
            Event::Message(Message::Forwarded(frame)) => vec![Action::Deliver(frame)],
            Event::Message(Message::ForwardedEnd) => {
                self.late = false;
                self.end_if_over()
            }
            Event::Pages(runs) | Event::Message(Message::Zero(runs))
                if !self.lacking.is_empty() =>
            {
                let mut actions = vec![Action::Send(self.lacking.filled(&runs, now))];
                if self.lacking.is_empty() {
                    self.wait_no_more();
                    actions.push(Action::Complete);
                    actions.push(Action::Send(Message::Whole(self.lacking.arrival())));
                    actions.extend(self.end_if_over());
                }
                actions
            }
            Event::Fault(page) if self.lacking.pages().contains(page) => {
                let news = self.lacking.wait_for(page, now);
                let word = Action::Send(Message::Want(vec![(page as u64, 1)]));
                if news && self.linked { vec![word] } else { Vec::new() }
            }
            Event::Fault(page) => vec![Action::Supply(page)],
            Event::LinkLost(_) if self.lacking.is_empty() => {
                self.linked = false;
                self.end_if_over()
            }
            Event::Settled(settled) => {
                self.settled = Some(settled);
                let word = Action::Send(Message::Settled(settled));
                let mut actions = if self.linked { vec![word] } else { Vec::new() };
                actions.extend(self.end_if_over());
                actions
            }
            Event::LinkLost(why) => self.await_source(why),
            Event::Rejoined => {
                self.linked = true;
                if !self.lacking.is_empty() {
                    self.heard(now);
                }
                let outcome = if self.lacking.is_empty() { Outcome::Ran } else { Outcome::Lacking };
                let id = self.id.unwrap_or_default();
                let mut actions = vec![Action::Send(Message::Outcome(id, outcome))];
                if outcome == Outcome::Lacking {
                    actions.extend(self.lacking.say_all().into_iter().map(Action::Send));
                    // The source may not have received it, as the connection it was sent on has
                    // broken.
                    actions.extend(self.settled.map(|s| Action::Send(Message::Settled(s))));
                }
                actions
            }
            Event::VmEnded => {
                // Nothing needs the missing pages any more.
                let whole = Action::Send(Message::Whole(self.lacking.arrival()));
                let mut actions = if self.lacking.is_empty() { Vec::new() } else { vec![whole] };
                actions.extend(self.end());
                actions
            }
            Event::Tick if self.lost_at.is_some_and(|at| now >= at) => {
                self.wait_no_more();
                let mut actions = vec![Action::Lost(self.lacking.pages().clone())];
                actions.extend(self.end());
                actions
            }
            Event::Tick if self.deadline.is_some_and(|at| now >= at) => {
                self.await_source("the source fell silent".into())
            }
            // What a source sends late or twice, and answers to actions from before the commit.
            Event::Message(_)
            | Event::Pages(_)
            | Event::Prepared(_)
            | Event::Forgot(_)
            | Event::Applied(_)
            | Event::Asked
            | Event::Tick => Vec::new(),
        }
    }

    /// The link has failed while pages are missing. The only deadline left is the end of the wait,
    /// if it is limited.
    fn await_source(&mut self, why: String) -> Vec<Action> {
        self.linked = false;
        self.deadline = None;
        vec![Action::AwaitSource(why)]
    }

    fn end_if_over(&mut self) -> Vec<Action> {
        let late = self.late && self.linked;
        let over = !late && self.lacking.is_empty() && self.settled.is_some();
        if over { self.end() } else { Vec::new() }
    }

    fn end(&mut self) -> Vec<Action> {
        self.state = State::Ended;
        vec![Action::End]
    }

    fn give_up(&mut self, why: String, tell: bool) -> Vec<Action> {
        self.state = State::Ended;
        let mut actions = Vec::new();
        if tell {
            actions.push(Action::Send(Message::Abort(why.clone())));
        }
        actions.extend([Action::Discard(why), Action::End]);
        actions
    }
}
