//! Carries out what [`precopy`](crate::precopy) decides after each round: another round, an urgent
//! round, or the switch.

use super::{Action, Failure, Mode, Source, State};
use crate::{
    page_set::PageSet,
    precopy::{Budget, Standing, Step, Switch, Verdict},
};
use std::time::Duration;

impl Source {
    /// Whether there are urgent rounds before the switch.
    pub(super) fn hurries(&self) -> bool {
        self.settings.urgent_rounds > 0 && self.settings.mode != Mode::Hybrid
    }

    fn switch(&self) -> Switch {
        Switch {
            budget: self.budget(),
            strict: self.settings.strict,
            more_rounds: self.settings.mode != Mode::Hybrid,
            urgent_rounds: self.settings.urgent_rounds,
            follow: self.can_follow && matches!(self.settings.mode, Mode::Auto | Mode::Hybrid),
        }
    }

    fn budget(&self) -> Budget {
        Budget { max_blackout: self.settings.max_blackout, together: self.settings.together }
    }

    pub(super) fn take_dirty(&mut self) -> Vec<Action> {
        self.to(State::Looking, None);
        vec![Action::TakeDirty]
    }

    /// The pages left may be few enough for the urgent rounds. Then these take the dirty log, and
    /// not a round before.
    pub(super) fn peeked(
        &mut self,
        dirty: &PageSet,
        page_hints: PageSet,
        now: Duration,
    ) -> Vec<Action> {
        let mut left = self.rounds.left().clone();
        left.add(dirty);
        left.take_out(&page_hints);
        self.numbers.predicted = self.expected(left.len());
        if !self.switch().begins(&self.measured, left.len(), self.rounds.may_go_on()) {
            return self.take_dirty();
        }
        self.page_hints = page_hints;
        self.urgent_round(now)
    }

    /// Pages that changed during ordinary rounds are sent in urgent rounds, so that next to nothing
    /// is left for the blackout. The speed of the urgent rounds predicts the blackout, and the
    /// destination's confirmation shows that it is awake.
    fn urgent_round(&mut self, now: Duration) -> Vec<Action> {
        let mut actions: Vec<Action> = self.switch_hint().into_iter().collect();
        self.rounds_since_hint += 1;
        actions.extend(self.next_round(now));
        actions
    }

    /// A round is over, with the policy's `verdict`: starts another, or the switch.
    pub(super) fn decide(&mut self, verdict: Verdict, now: Duration) -> Vec<Action> {
        let mut left = self.rounds.left().clone();
        left.take_out(&self.page_hints);
        self.numbers.predicted = self.expected(left.len());
        let standing = Standing {
            left: left.len(),
            verdict,
            sent: (self.last.full + self.last.zero) as usize,
            urgent: self.rounds_since_hint,
            may_go_on: self.rounds.may_go_on(),
        };
        let switch = self.switch();
        match switch.next(&self.measured, &standing) {
            Step::Round => self.next_round(now),
            Step::UrgentRound => self.urgent_round(now),
            Step::Stop => self.stop(),
            Step::Announce => self.announce(left, now),
            Step::Fail(predicted) => {
                let (most, follow) = (self.settings.max_blackout, switch.follow);
                self.fail(Failure::DoesNotFit { predicted, most, follow }, true)
            }
        }
    }

    /// Announces what is left as post-copy pages, without those that the guest touches at once.
    fn announce(&mut self, left: PageSet, now: Duration) -> Vec<Action> {
        let hot = self.rounds.hottest(&left, self.room_for_hot());
        let mut pages = left;
        pages.take_out(&hot);
        for page in 0..self.settings.first_that_follows {
            pages.remove(page);
        }
        self.asked = now;
        self.to(State::Announcing, None);
        self.announced = Some(pages.clone());
        let announce = Action::Announce { round: self.rounds.done(), pages };
        self.switch_hint().into_iter().chain([announce]).collect()
    }

    /// See [`Budget::expected`].
    pub(super) fn expected(&self, pages: usize) -> Duration {
        self.budget().expected(&self.measured, pages)
    }

    /// See [`Budget::goes_together`].
    pub(super) fn goes_together(&self, pages: usize) -> bool {
        self.budget().goes_together(&self.measured, pages)
    }

    /// See [`Budget::room_for_hot`].
    pub(super) fn room_for_hot(&self) -> usize {
        self.budget().room_for_hot(&self.measured)
    }
}
