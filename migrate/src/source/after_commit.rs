//! The source after the commit: it never runs the VM again without the destination's word, and
//! sends the post-copy pages.

use std::time::Duration;

use super::{Action, Ended, Event, Failure, Source, State, following::Following};
use crate::{
    page_set::PageSet,
    wire::{Message, Outcome},
};

impl Source {
    /// The point of no return has passed: only the destination's word lets the VM run here again.
    pub(super) fn after_commit(&mut self, event: Event, now: Duration) -> Vec<Action> {
        match (self.state, event) {
            (State::Committed, Event::Message(Message::Running(started))) => {
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
            (State::Committed, Event::Sent(sent)) => {
                self.count(sent);
                self.numbers.last = sent.full;
                self.moments.sent = now;
                Vec::new()
            }
            (State::Following, event) if !matches!(event, Event::Abandoned) => {
                self.following(event, now)
            }
            (State::Committed, Event::Message(Message::Outcome(id, outcome)))
                if id == self.id && outcome == Outcome::Never =>
            {
                self.outcome(outcome, now)
            }
            (State::Settling, event) if !matches!(event, Event::Abandoned) => {
                self.settling(event, now)
            }
            (State::Unknown, Event::Message(Message::Outcome(id, outcome))) if id == self.id => {
                self.outcome(outcome, now)
            }
            (State::Rejoining, Event::Message(Message::Lacks(runs))) => {
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
            (State::Unknown, Event::Reconnected) => {
                self.deadline = Some(now + self.settings.answer);
                vec![Action::Send(Message::Query(self.id, self.receiver))]
            }
            (_, Event::Progress) => {
                self.deadline = Some(now + self.settings.answer);
                Vec::new()
            }
            // Not while the destination can report the outcome itself.
            (State::Unknown, Event::Vouched) => self.fall_back(Failure::Vouched, true),
            (_, Event::Abandoned) => self.fall_back(Failure::Abandoned, false),
            // Silence, a broken link, or nonsense: ask again on a new connection.
            (_, Event::LinkLost(_) | Event::Message(_)) => self.ask_again(now),
            (_, Event::Tick) => match self.deadline {
                Some(at) if now >= at => self.ask_again(now),
                Some(_) | None => Vec::new(),
            },
            // Nothing calls the move off any more, and what was asked for before the commit is
            // of no use.
            (
                _,
                Event::Reconnected
                | Event::Vouched
                | Event::Cancel(_)
                | Event::Failed(_)
                | Event::Sent(_)
                | Event::Held
                | Event::Reclaimed(_)
                | Event::LeftOut(_)
                | Event::Peeked { .. }
                | Event::Dirty { .. }
                | Event::Stopped(_),
            ) => Vec::new(),
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

    fn following(&mut self, event: Event, now: Duration) -> Vec<Action> {
        let Some(following) = &mut self.following else { return self.ask_again(now) };
        match event {
            Event::Message(Message::Want(runs)) => {
                let wanted = following.wanted(&runs);
                self.deadline = Some(now + self.settings.answer);
                if wanted.is_empty() { Vec::new() } else { vec![Action::SendFollowing(wanted)] }
            }
            Event::Message(Message::Filled(pages)) => {
                following.filled(pages);
                self.follow(now)
            }
            Event::Sent(sent) => {
                following.sent(sent.full + sent.zero);
                self.count(sent);
                self.follow(now)
            }
            Event::Message(Message::Whole(arrival)) => {
                self.numbers.arrival = Some(arrival);
                self.whole(now)
            }
            Event::Message(Message::Settled(settled)) => {
                self.numbers.settled = Some(settled);
                self.deadline = Some(now + self.settings.answer);
                Vec::new()
            }
            Event::Tick if self.deadline.is_none_or(|at| now < at) => Vec::new(),
            Event::Progress => {
                self.deadline = Some(now + self.settings.answer);
                Vec::new()
            }
            Event::LinkLost(_) | Event::Tick | Event::Message(_) => self.ask_again(now),
            Event::Reconnected
            | Event::Vouched
            | Event::Abandoned
            | Event::Cancel(_)
            | Event::Failed(_)
            | Event::Held
            | Event::Reclaimed(_)
            | Event::LeftOut(_)
            | Event::Peeked { .. }
            | Event::Dirty { .. }
            | Event::Stopped(_) => Vec::new(),
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
