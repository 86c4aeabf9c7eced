//! The source after the commit: it never runs the VM again without the destination's word, and
//! sends the post-copy pages.

use std::time::Duration;

use super::{Action, Ended, Event, Failure, Sent, Source, State, following::Following};
use crate::{
    page_set::PageSet,
    wire::{Message, Outcome},
};

/// What matters once the commit is sent.
pub(super) enum Later {
    /// See [`Event::Message`].
    Message(Message),
    /// See [`Event::LinkLost`].
    LinkLost,
    /// See [`Event::Reconnected`].
    Reconnected,
    /// See [`Event::Vouched`].
    Vouched,
    /// See [`Event::Abandoned`].
    Abandoned,
    /// See [`Event::Sent`].
    Sent(Sent),
    /// See [`Event::Progress`].
    Progress,
    /// See [`Event::Tick`].
    Tick,
}

impl Later {
    /// `None`: nothing calls the move off any more, and what was asked for before the commit is of
    /// no use.
    fn of(event: Event) -> Option<Self> {
        Some(match event {
            Event::Message(message) => Self::Message(message),
            Event::LinkLost(_) => Self::LinkLost,
            Event::Reconnected => Self::Reconnected,
            Event::Vouched => Self::Vouched,
            Event::Abandoned => Self::Abandoned,
            Event::Sent(sent) => Self::Sent(sent),
            Event::Progress => Self::Progress,
            Event::Tick => Self::Tick,
            Event::Cancel(_)
            | Event::Failed(_)
            | Event::Held
            | Event::Reclaimed(_)
            | Event::LeftOut(_)
            | Event::Peeked { .. }
            | Event::Dirty { .. }
            | Event::Stopped(_) => return None,
        })
    }
}

impl Source {
    /// The point of no return has passed: only the destination's word lets the VM run here again.
    pub(super) fn after_commit(&mut self, event: Event, now: Duration) -> Vec<Action> {
        let Some(event) = Later::of(event) else { return Vec::new() };
        match (self.state, event) {
            (_, Later::Abandoned) => self.fall_back(Failure::Abandoned, false),
            (State::Following, event) => self.following(event, now),
            (State::Settling, event) => self.settling(event, now),
            (State::Committed, Later::Message(Message::Running(started))) => {
                self.moments.running = Some(now);
                self.numbers.started = started;
                self.ran = true;
                let mut actions = vec![Action::HandOn];
                actions.extend(if self.following.is_some() {
                    self.follow(now)
                } else {
                    self.whole(now)
                });
                actions
            }
            (State::Committed, Later::Sent(sent)) => {
                self.count(sent);
                self.numbers.last = sent.full;
                self.moments.sent = now;
                Vec::new()
            }
            (State::Committed, Later::Message(Message::Outcome(id, outcome)))
                if id == self.id && outcome == Outcome::Never =>
            {
                self.outcome(outcome, now)
            }
            (State::Unknown, Later::Message(Message::Outcome(id, outcome))) if id == self.id => {
                self.outcome(outcome, now)
            }
            (State::Rejoining, Later::Message(Message::Lacks(runs))) => {
                self.deadline = Some(now + self.settings.answer);
                if !runs.is_empty() {
                    self.lacks.insert_runs(&runs);
                    return Vec::new();
                }
                let none = PageSet::none(self.lacks.limit());
                let lacks = std::mem::replace(&mut self.lacks, none);
                if let Some(following) = &mut self.following {
                    following.begin_again(lacks);
                }
                self.follow(now)
            }
            (State::Unknown, Later::Reconnected) => {
                self.deadline = Some(now + self.settings.answer);
                vec![Action::Send(Message::Query(self.id, self.receiver))]
            }
            (_, Later::Progress) => {
                self.deadline = Some(now + self.settings.answer);
                Vec::new()
            }
            // Not while the destination can report the outcome itself.
            (State::Unknown, Later::Vouched) => self.fall_back(Failure::Vouched, true),
            // Silence, a broken link, or nonsense: ask again on a new connection.
            (_, Later::LinkLost | Later::Message(_)) => self.ask_again(now),
            (_, Later::Tick) if self.deadline.is_some_and(|at| now >= at) => self.ask_again(now),
            (_, Later::Reconnected | Later::Vouched | Later::Sent(_) | Later::Tick) => Vec::new(),
        }
    }

    /// Ends the move as failed; `run_here` lets the VM run here again.
    fn fall_back(&mut self, failure: Failure, run_here: bool) -> Vec<Action> {
        self.to(State::Ended, None);
        let runs = run_here.then_some(Action::RunHere);
        runs.into_iter().chain([Action::End(Ended::Failed(failure))]).collect()
    }

    /// Handles the destination's answer on the outcome of the move.
    fn outcome(&mut self, outcome: Outcome, now: Duration) -> Vec<Action> {
        match outcome {
            Outcome::Ran => {
                self.numbers.whole = Some(now);
                self.moved()
            }
            Outcome::Lacking if self.following.is_some() => {
                let first = !std::mem::replace(&mut self.ran, true);
                self.to(State::Rejoining, Some(now + self.settings.answer));
                if first { vec![Action::HandOn] } else { Vec::new() }
            }
            // A VM cannot have run and also never have run.
            Outcome::Never if !self.ran => self.fall_back(Failure::NeverRan, true),
            Outcome::Never | Outcome::Lacking | Outcome::Unknown => self.ask_again(now),
        }
    }

    fn following(&mut self, event: Later, now: Duration) -> Vec<Action> {
        let Some(following) = &mut self.following else { return self.ask_again(now) };
        match event {
            Later::Message(Message::Want(runs)) => {
                let wanted = following.wanted(&runs);
                self.deadline = Some(now + self.settings.answer);
                if wanted.is_empty() { Vec::new() } else { vec![Action::SendFollowing(wanted)] }
            }
            Later::Message(Message::Filled(pages)) => {
                following.filled(pages);
                self.follow(now)
            }
            Later::Sent(sent) => {
                following.sent(sent.full + sent.zero);
                self.count(sent);
                self.follow(now)
            }
            Later::Message(Message::Whole(arrival)) => {
                self.numbers.arrival = Some(arrival);
                self.whole(now)
            }
            Later::Message(Message::Settled(settled)) => {
                self.numbers.settled = Some(settled);
                self.deadline = Some(now + self.settings.answer);
                Vec::new()
            }
            Later::Tick if self.deadline.is_none_or(|at| now < at) => Vec::new(),
            Later::Progress => {
                self.deadline = Some(now + self.settings.answer);
                Vec::new()
            }
            Later::LinkLost | Later::Tick | Later::Message(_) => self.ask_again(now),
            Later::Reconnected | Later::Vouched | Later::Abandoned => Vec::new(),
        }
    }

    /// Sends the post-copy pages that may be sent now.
    fn follow(&mut self, now: Duration) -> Vec<Action> {
        self.to(State::Following, Some(now + self.settings.answer));
        let next = self.following.as_mut().and_then(Following::next);
        next.map(Action::SendFollowing).into_iter().collect()
    }

    /// The VM is there, with all its memory.
    fn whole(&mut self, now: Duration) -> Vec<Action> {
        self.numbers.whole = Some(now);
        self.settle(now)
    }

    pub(super) fn moved(&mut self) -> Vec<Action> {
        self.to(State::Ended, None);
        vec![Action::End(Ended::Moved)]
    }

    fn ask_again(&mut self, now: Duration) -> Vec<Action> {
        self.lacks = PageSet::none(self.lacks.limit());
        let wait = self.state == State::Unknown;
        self.to(State::Unknown, Some(now + self.settings.answer));
        vec![Action::Reconnect { wait }]
    }
}
