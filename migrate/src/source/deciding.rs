//! Decides after each round: another round, the urgent rounds, or the stop.

use super::{Action, Failure, Mode, Source, State};
use crate::pages::Pages;
use std::time::Duration;

/// The urgent rounds may begin with this many pages left, however long these are predicted to take:
/// only the urgent rounds measure that.
const URGENT_MOST: usize = 512;
/// This few pages may be sent with the commit however slow the link is.
const FEW: usize = 64;
/// Most pages sent in the blackout when post-copy follows: those that the guest touches at once.
const HOT_MAX: usize = 128;
/// Urgent rounds continue after those of the settings, up to this number, …
const URGENT_ROUNDS_MAX: u32 = 16;
/// … until no more than this many pages are left.
const NEXT_TO_NOTHING: usize = 32;

impl Source {
    /// Whether there are urgent rounds before the switch.
    pub(super) fn hurries(&self) -> bool {
        self.settings.urgent_rounds > 0 && self.settings.mode != Mode::Hybrid
    }

    pub(super) fn take_dirty(&mut self) -> Vec<Action> {
        self.to(State::Looking, None);
        vec![Action::TakeDirty]
    }

    /// The pages left may be few enough for the urgent rounds. Then these take the dirty log, and
    /// not a round before: each page taken costs the guest a fault on its next write, and the guest
    /// may write to all of them at once.
    pub(super) fn peeked(
        &mut self,
        dirty: &Pages,
        page_hints: Pages,
        now: Duration,
    ) -> Vec<Action> {
        let mut left = self.rounds.left().clone();
        left.add(dirty);
        left.take_out(&page_hints);
        let soon = 2 * self.settings.max_blackout;
        let soon = self.measured.time_for(left.len()).is_some_and(|time| time <= soon);
        self.numbers.predicted = self.expected(left.len());
        if left.len() > URGENT_MOST || !soon || !self.rounds.may_go_on() {
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

    /// A round is over: starts another, or the switch. `more`: another would leave less.
    pub(super) fn decide(&mut self, more: bool, now: Duration) -> Vec<Action> {
        let follow = self.can_follow && matches!(self.settings.mode, Mode::Auto | Mode::Hybrid);
        let most = self.settings.max_blackout;
        let mut left = self.rounds.left().clone();
        left.take_out(&self.page_hints);
        let all_in = self.expected(left.len());
        self.numbers.predicted = all_in;
        let may = self.rounds.may_go_on();
        if more && may && self.rounds_since_hint == 0 && self.settings.mode != Mode::Hybrid {
            return self.next_round(now);
        }
        if self.settings.mode != Mode::Hybrid {
            let near = self.rounds_since_hint > 0 || all_in <= most || left.len() <= URGENT_MOST;
            let due = near && self.rounds_since_hint < self.settings.urgent_rounds;
            if may && (due || self.leaves_less(left.len())) {
                return self.urgent_round(now);
            }
            // The last pages may take longer than the rounds did. With post-copy that need not make
            // the blackout longer than allowed.
            if all_in <= if follow { most * 3 / 4 } else { most } {
                return self.stop();
            }
        }
        // The part that post-copy cannot shorten.
        let least = if follow { self.expected(0) } else { all_in };
        if self.settings.strict && least > most {
            return self.fail(Failure::DoesNotFit { predicted: least, most, follow }, true);
        }
        if !follow {
            return self.stop();
        }
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

    /// Whether one more urgent round leaves less than the `left` pages of now, as the last one did.
    /// The number of rounds until next to nothing is left depends on how fast the guest writes and
    /// how fast pages are transferred, so no fixed number fits every CPU.
    fn leaves_less(&self, left: usize) -> bool {
        let sent = (self.last.full + self.last.zero) as usize;
        (1..URGENT_ROUNDS_MAX).contains(&self.rounds_since_hint)
            && left > NEXT_TO_NOTHING
            && left.saturating_mul(16) <= sent.saturating_mul(15)
    }

    /// The predicted blackout with this many pages in it.
    pub(super) fn expected(&self, pages: usize) -> Duration {
        self.measured.blackout(pages, self.goes_together(pages))
    }

    /// Whether so few pages are left that the commit is sent together with them and the state.
    pub(super) fn goes_together(&self, pages: usize) -> bool {
        let most = self.settings.max_blackout;
        let soon = || self.measured.time_for(pages).is_some_and(|time| time <= most);
        self.settings.together && (pages <= FEW || soon())
    }

    /// How many pages to send in the blackout before post-copy: half of what would fit, as more
    /// will have changed by then.
    pub(super) fn room_for_hot(&self) -> usize {
        let room = self.measured.pages_within(self.settings.max_blackout, self.settings.together);
        (room / 2).min(HOT_MAX)
    }
}
