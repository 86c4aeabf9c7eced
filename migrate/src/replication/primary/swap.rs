//! The planned swap. The arbiter records it while the guest runs on; the blackout is one message.
//!
//! From the record on the standby is the one that will be active, and this member the one in sync.
//! It runs the VM until it sends `Yours`, as the standby does not run before it has that. If either
//! is lost meanwhile, the other one goes on by another swap at the arbiter, as always. Other
//! standbys follow until then, so that they are in sync again at once if the swap fails; after it
//! they are dropped.

use std::time::Duration;

use super::{
    Action, Lost, News, Primary, State,
    peers::{Peer, Stage},
};
use crate::replication::{Standby, arbiter::MemberId, wire::Message};

/// Most records that the standby may have left to execute when the swap begins. The guest does not
/// run while it executes them, so they belong to the blackout.
const LEFT_MAX: u64 = 16;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Step {
    /// The standby has too much left to execute.
    Waiting,
    /// The arbiter has not recorded it yet.
    Asking,
    /// The guest is being stopped.
    Stopping,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Swap {
    pub to: MemberId,
    pub step: Step,
}

impl Primary {
    pub(super) fn begin_swap(&mut self, to: MemberId, out: &mut Vec<Action>) {
        let peer = self.peers.get(&to);
        let recorded = self.asking.record().is_some_and(|record| record.in_sync.contains(&to));
        let why = if self.swap.is_some() {
            "another swap is on its way"
        } else if self.unprotecting {
            "the VM is to be protected no longer"
        } else if !recorded || peer.is_none_or(|peer| peer.stage != Stage::InSync) {
            "the standby is not in sync: wait until it is"
        } else {
            self.swap = Some(Swap { to, step: Step::Waiting });
            return;
        };
        out.push(Action::Report(News::SwapFailed(why.into())));
    }

    /// Asks for the swap once the standby has executed nearly all.
    pub(super) fn go_on_with_swap(&mut self) {
        let Some(swap) = self.swap.as_mut().filter(|swap| swap.step == Step::Waiting) else {
            return;
        };
        let left = self.peers.get(&swap.to).map(|peer| self.log.last() - peer.executed);
        if left.is_some_and(|left| left <= LEFT_MAX) {
            swap.step = Step::Asking;
        }
    }

    pub(super) fn cancel_swap(&mut self, why: String, out: &mut Vec<Action>) {
        let Some(swap) = self.swap.take() else { return };
        if swap.step == Step::Stopping {
            out.push(Action::Resume);
        }
        out.push(Action::Report(News::SwapFailed(why)));
    }

    pub(super) fn stopped(&mut self, out: &mut Vec<Action>) {
        let swap = self.swap.as_ref().filter(|swap| swap.step == Step::Stopping);
        let (Some(swap), Some(record)) = (swap, self.asking.known.clone()) else {
            // The swap was cancelled while the guest was being stopped.
            return out.push(Action::Resume);
        };
        let (to, position) = (swap.to, self.log.last());
        let message = Message::Yours { position, record };
        out.push(Action::Send { to, message });
        // The new primary has no connection to the others, which have to be seeded anew.
        let others: Vec<_> = self.peers.keys().copied().filter(|&id| id != to).collect();
        others.into_iter().for_each(|id| self.left(id, out));
        self.state = State::HandedOver;
        out.push(Action::HandedOver);
    }

    /// The standby that this member is after [`Action::HandedOver`], over the connection to the
    /// member that the VM was given to. `None` before that.
    #[must_use]
    pub fn into_standby(self, now: Duration) -> Option<Standby> {
        let swap = self.swap.filter(|_| self.state == State::HandedOver)?;
        let known = self.asking.known?;
        let at = (self.log.last(), self.released);
        Some(Standby::handed_over(self.me, swap.to, self.settings, known, at, now))
    }

    /// A standby has become the primary by a swap: the primary before it is its standby, which has
    /// everything.
    pub(super) fn keep(
        &mut self,
        member: MemberId,
        gone: bool,
        now: Duration,
        out: &mut Vec<Action>,
    ) {
        let position = self.log.last();
        self.add(member, Peer::new(Stage::InSync, position, now), now);
        if gone {
            return self.leave(member, Lost::Disconnected("during the swap".into()), out);
        }
        let message = Message::Mine { position, term: self.term };
        out.push(Action::Send { to: member, message });
        self.tell_record(member, out);
    }
}
