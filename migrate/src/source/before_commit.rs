//! The source until the commit: on any failure the VM keeps running here as if no move had begun.

use std::time::Duration;

use super::{Action, Event, Failure, Mode, Source, State, Stopped, following::Following};
use crate::{page_set::PageSet, report::Moments, wire::Message};

impl Source {
    pub(super) fn before_commit(&mut self, event: Event, now: Duration) -> Vec<Action> {
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
                // The message only proves that the process runs, not that it makes progress.
                let most = self.asked + self.settings.prepare;
                self.deadline = Some(most.min(now + self.settings.answer));
                Vec::new()
            }
            (State::Offering, Event::Message(Message::Accept(accepted))) => {
                self.can_follow = accepted.follow;
                self.measured.applied(Duration::from_nanos(accepted.apply_ns));
                self.accepted(now)
            }
            (_, Event::Reclaimed(pages)) => {
                self.page_hints = pages;
                Vec::new()
            }
            (State::Copying, Event::LeftOut(pages)) => {
                self.rounds.leave_out(&pages);
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
                // The first urgent round is not representative: the destination prewarms during it.
                if self.rounds_since_hint != 1 {
                    let took = now.saturating_sub(self.asked + self.last.idle);
                    self.measured.round(self.last.bytes, took);
                }
                self.rounds.sent();
                if self.rounds_since_hint == 0 && self.hurries() {
                    self.to(State::Peeking, None);
                    return vec![Action::PeekDirty];
                }
                self.take_dirty()
            }
            (State::Peeking, Event::Peeked { dirty, page_hints }) => {
                self.peeked(&dirty, page_hints, now)
            }
            (State::Looking, Event::Dirty { dirty, page_hints }) => {
                let time = self.measured.time_for(dirty.len()).unwrap_or_default();
                let verdict = self.rounds.verdict(dirty.len(), time);
                self.rounds.changed(&dirty);
                self.page_hints = page_hints;
                self.decide(verdict, now)
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
            // An answer to an action that a failure has overtaken, or an event that only concerns a
            // move whose commit was sent.
            (
                _,
                Event::Sent(_)
                | Event::Held
                | Event::LeftOut(_)
                | Event::Peeked { .. }
                | Event::Dirty { .. }
                | Event::Stopped(_)
                | Event::Reconnected
                | Event::Vouched
                | Event::Abandoned,
            ) => Vec::new(),
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
            Some(_) | None => Vec::new(),
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
            Mode::Auto | Mode::PreCopy | Mode::Hybrid => {
                let mut actions = vec![Action::StartLog];
                actions.extend(self.next_round(now));
                actions
            }
        }
    }

    pub(super) fn stop(&mut self) -> Vec<Action> {
        self.to(State::Stopping, None);
        let switch_hint = self.switch_hint();
        let timeout = self.settings.quiesce;
        let stop = [Action::Send(Message::Stopping), Action::Stop { timeout }];
        switch_hint.into_iter().chain(stop).collect()
    }

    /// The switch-over hint, sent once.
    pub(super) fn switch_hint(&mut self) -> Option<Action> {
        (!std::mem::replace(&mut self.said_hint, true)).then_some(Action::SwitchHint)
    }

    fn stopped(&mut self, guest: &Stopped) -> Vec<Action> {
        let Stopped { requested, stopped, .. } = *guest;
        self.moments = Moments { requested, stopped, ..Moments::default() };
        self.numbers.quiescent = guest.quiescent;
        self.to(State::Finishing, None);
        let mut pages = self.rounds.last(&guest.dirty, &guest.page_hints);
        let mut follow = PageSet::none(pages.limit());
        if let Some(announced) = &self.announced {
            let mut now = self.rounds.hottest(&pages, self.room_for_hot());
            let needed = guest.needed.iter().copied().chain(0..self.settings.first_that_follows);
            needed.filter(|page| pages.contains(*page)).for_each(|page| now.insert(page));
            // All that the destination does not have: pages announced and pages changed since,
            // without those sent now.
            let mut rest = announced.clone();
            rest.add(&pages);
            rest.take_out(&now);
            self.numbers.predicted = self.expected(now.len());
            self.numbers.follow = rest.len() as u64;
            follow.add(&rest);
            follow.take_out(announced);
            // A destination that lacks nothing does not send `Whole`.
            self.following = (!rest.is_empty()).then(|| Following::new(rest));
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

    pub(super) fn next_round(&mut self, now: Duration) -> Vec<Action> {
        self.asked = now;
        self.to(State::Copying, None);
        let pages = self.rounds.next(&self.page_hints);
        vec![Action::SendPages { round: self.rounds.done(), pages }]
    }
}
