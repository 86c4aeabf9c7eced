//! The primary is lost or has given the VM: the way to become the primary.

use std::time::Duration;

use super::{Action, By, Ended, Lost, Standby, State};
use crate::replication::{
    Primary,
    arbiter::Answer,
    asking::Heard,
    primary::{self, TakenOver},
};

impl Standby {
    pub(super) fn lose(&mut self, why: Lost, out: &mut Vec<Action>) {
        match self.state.clone() {
            State::Following => {
                self.state = State::Finishing;
                out.extend([Action::PrimaryLost(why), Action::Close]);
            }
            // The VM was given before that: nobody needs to be asked.
            State::Taking { gone: false } => {
                self.state = State::Taking { gone: true };
                out.extend([Action::PrimaryLost(why), Action::Close]);
            }
            State::Diverged(position, what) => {
                self.end(Ended::Diverged { position, what }, out);
            }
            State::Taking { .. }
            | State::Finishing
            | State::Asking
            | State::TookOver(_)
            | State::Ended => {}
        }
    }

    /// What may follow from any event.
    pub(super) fn go_on(&mut self, now: Duration, out: &mut Vec<Action>) {
        let all = self.executed == self.received;
        if self.state == State::Finishing && all {
            self.state = State::Asking;
        }
        if let State::Taking { gone } = self.state
            && all
        {
            self.take_over(By::Swap { gone }, out);
        }
        if self.state == State::Asking && self.asking.free(now) {
            let new = self.record().filter(|r| r.names(self.me)).map(|r| r.next(self.me, []));
            out.push(Action::Ask(match new {
                Some(new) => self.asking.swap(new),
                // The primary may have had it recorded and not told.
                None => self.asking.read(),
            }));
        }
    }

    pub(super) fn answered(&mut self, answer: Answer, now: Duration, out: &mut Vec<Action>) {
        match self.asking.hear(answer, now, self.settings.retry) {
            Heard::Won => self.take_over(By::Arbiter, out),
            Heard::There(there) if there.record.names(self.me) => self.asking.learn(there),
            Heard::There(there) => self.end(Ended::Lost(there.record.term), out),
            Heard::Nothing(why) => {
                if self.asking.first_failure() {
                    out.push(Action::ArbiterUnreachable(why));
                }
                if self.settings.alone_without_arbiter && self.in_sync() {
                    out.push(Action::AloneWithoutArbiter);
                    self.take_over(By::Itself, out);
                }
            }
            Heard::Unasked => {}
        }
    }

    /// For a driver that is about to carry out [`Action::TakeOver`]: if that was delayed, the
    /// primary that has given the VM may have given this member up and taken it back. Then this
    /// member asks the arbiter first, and these are its actions.
    #[must_use]
    pub fn reconsider(&mut self, now: Duration) -> Option<Vec<Action>> {
        let late = self.heard.saturating_add(self.settings.silence()) <= now;
        if !late || !matches!(self.state, State::TookOver(By::Swap { gone: false })) {
            return None;
        }
        let mut out = vec![Action::PrimaryLost(Lost::Silent), Action::Close];
        self.state = State::Asking;
        self.go_on(now, &mut out);
        Some(out)
    }

    fn take_over(&mut self, by: By, out: &mut Vec<Action>) {
        self.state = State::TookOver(by);
        let (position, released) = (self.received, self.released);
        out.push(Action::TakeOver { position, released });
    }

    /// The primary that this member is after [`Action::TakeOver`], and its first actions: they
    /// release the output that is held, and after a swap answer the primary before, over the same
    /// connection. `None` before that.
    #[must_use]
    pub fn into_primary(self, now: Duration) -> Option<(Primary, Vec<primary::Action>)> {
        let State::TookOver(by) = self.state else { return None };
        let before = match by {
            By::Swap { gone } => Some((self.primary, gone)),
            By::Arbiter | By::Itself => None,
        };
        let taken = TakenOver {
            me: self.me,
            settings: self.settings,
            known: self.asking.known?,
            last: self.received,
            released: self.released,
            before,
            alone: by == By::Itself,
        };
        Some(Primary::taken_over(taken, now))
    }
}
