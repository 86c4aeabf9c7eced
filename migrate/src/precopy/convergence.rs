//! Decides after each round: another round, or the end of the rounds; and when a move switches.

use std::time::Duration;

use super::{Budget, Measured};

/// The urgent rounds may begin with this many pages left, however long these are predicted to take:
/// only the urgent rounds measure that.
const URGENT_MOST: usize = 512;
/// Urgent rounds continue after those of the settings, up to this number, …
const URGENT_ROUNDS_MAX: u32 = 16;
/// … until no more than this many pages are left.
const NEXT_TO_NOTHING: usize = 32;

/// When rounds end.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Policy {
    /// Rounds end as soon as no more than this changed during the last one …
    pub few: Few,
    /// … or after this many …
    pub rounds_max: u32,
    /// … or when one does not converge: more pages changed during it than this percentage of those
    /// that changed during the round before.
    pub converging_percent: usize,
    /// Whether the first round has to converge too, compared to the number of pages that it copies.
    /// It takes much longer than the others, so it says little about a guest that writes to the
    /// same few pages all the time.
    pub judge_first: bool,
}

/// So little that it can be copied while the guest is stopped.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Few {
    /// Pages that take no longer than this to copy.
    Time(Duration),
    /// At most this many pages.
    Pages(usize),
}

/// What a policy says after a round.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Verdict {
    /// Few pages changed.
    Fits,
    /// Another round leaves less.
    Another,
    /// Another round leaves no less, or there were too many.
    Stuck,
}

impl Default for Policy {
    /// A move's. A twentieth of a millisecond for the last pages: the rest of the blackout is state
    /// and round trips.
    fn default() -> Self {
        Self {
            few: Few::Time(Duration::from_micros(50)),
            rounds_max: 12,
            converging_percent: 80,
            judge_first: false,
        }
    }
}

impl Policy {
    /// The verdict after `done` rounds: `dirty` pages, which take `time` to copy, changed during
    /// the last one, and `before` during the one before, if that is known.
    #[must_use]
    pub fn verdict(
        &self,
        dirty: usize,
        time: Duration,
        before: Option<usize>,
        done: u32,
    ) -> Verdict {
        let fits = match self.few {
            Few::Time(most) => time <= most,
            Few::Pages(most) => dirty <= most,
        };
        let converges = before.is_none_or(|before| {
            dirty.saturating_mul(100) <= before.saturating_mul(self.converging_percent)
        });
        match (fits, converges && done < self.rounds_max) {
            (true, _) => Verdict::Fits,
            (false, true) => Verdict::Another,
            (false, false) => Verdict::Stuck,
        }
    }
}

/// What a move may do to switch.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Switch {
    /// How long the blackout may take.
    pub budget: Budget,
    /// Whether the move fails rather than exceed that in the prediction.
    pub strict: bool,
    /// Whether there are rounds after the first.
    pub more_rounds: bool,
    /// Least number of urgent rounds before the stop.
    pub urgent_rounds: u32,
    /// Whether pages that do not fit may be sent after the switch.
    pub follow: bool,
}

/// Where a move stands after a round.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Standing {
    /// Pages left to send, without hinted ones.
    pub left: usize,
    /// The policy's verdict.
    pub verdict: Verdict,
    /// Pages of the round that was sent last.
    pub sent: usize,
    /// Urgent rounds sent so far.
    pub urgent: u32,
    /// Whether one more round is [allowed](super::Rounds::may_go_on).
    pub may_go_on: bool,
}

/// What a move does next.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Step {
    /// Another round.
    Round,
    /// An urgent round: it and those after it have real-time priority.
    UrgentRound,
    /// Stop the guest, and send the rest in the blackout.
    Stop,
    /// Announce the rest as post-copy pages, then stop the guest.
    Announce,
    /// Fail: the blackout is predicted to take this long, and may not.
    Fail(Duration),
}

impl Switch {
    /// Whether urgent rounds begin before the log is taken, with this many pages left: taking it
    /// costs the guest a fault for its next write to each page, and it may write to all of them at
    /// once, so an ordinary round had better not do it.
    #[must_use]
    pub fn begins(&self, measured: &Measured, left: usize, may_go_on: bool) -> bool {
        let soon = 2 * self.budget.max_blackout;
        let soon = measured.time_for(left).is_some_and(|time| time <= soon);
        left <= URGENT_MOST && soon && may_go_on
    }

    /// What to do after a round.
    #[must_use]
    pub fn next(&self, measured: &Measured, standing: &Standing) -> Step {
        let Standing { left, verdict, urgent, may_go_on, .. } = *standing;
        let most = self.budget.max_blackout;
        let all_in = self.budget.expected(measured, left);
        if self.more_rounds {
            if verdict == Verdict::Another && may_go_on && urgent == 0 {
                return Step::Round;
            }
            let near = urgent > 0 || all_in <= most || left <= URGENT_MOST;
            let due = near && urgent < self.urgent_rounds;
            if may_go_on && (due || standing.leaves_less()) {
                return Step::UrgentRound;
            }
            // The last pages may take longer than the rounds did. With post-copy that need not make
            // the blackout longer than allowed.
            if all_in <= if self.follow { most * 3 / 4 } else { most } {
                return Step::Stop;
            }
        }
        // The part that post-copy cannot shorten.
        let least = if self.follow { self.budget.expected(measured, 0) } else { all_in };
        if self.strict && least > most {
            Step::Fail(least)
        } else if self.follow {
            Step::Announce
        } else {
            Step::Stop
        }
    }
}

impl Standing {
    /// Whether one more urgent round leaves less than what is left now, as the last one did. The
    /// number of rounds until next to nothing is left depends on how fast the guest writes and how
    /// fast pages are transferred, so no fixed number fits every CPU.
    fn leaves_less(&self) -> bool {
        (1..URGENT_ROUNDS_MAX).contains(&self.urgent)
            && self.left > NEXT_TO_NOTHING
            && self.left.saturating_mul(16) <= self.sent.saturating_mul(15)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn rounds_end_when_the_rest_fits_or_does_not_shrink() {
        let of_move = Policy::default();
        let (soon, none) = (Duration::from_micros(1), Duration::ZERO);
        assert_eq!(of_move.verdict(50, 50 * MS, None, 1), Verdict::Another, "50 ms are too long");
        assert_eq!(of_move.verdict(40, 50 * MS, Some(50), 2), Verdict::Another);
        assert_eq!(of_move.verdict(41, 50 * MS, Some(50), 2), Verdict::Stuck, "hardly fewer");
        assert_eq!(of_move.verdict(1, 50 * MS, Some(50), 12), Verdict::Stuck, "the last round");
        assert_eq!(of_move.verdict(50, soon, Some(1), 12), Verdict::Fits);
        let by_number = Policy { few: Few::Pages(256), converging_percent: 50, ..of_move };
        assert_eq!(by_number.verdict(256, MS, Some(1), 1), Verdict::Fits);
        assert_eq!(by_number.verdict(257, none, Some(514), 1), Verdict::Another);
        assert_eq!(by_number.verdict(257, none, Some(513), 1), Verdict::Stuck);
    }

    fn switch() -> Switch {
        let budget = Budget { max_blackout: MS, together: true };
        Switch { budget, strict: false, more_rounds: true, urgent_rounds: 3, follow: true }
    }

    /// A page takes a microsecond.
    fn measured() -> Measured {
        let mut measured = Measured::new(Duration::ZERO);
        measured.round(4096 * 4096, Duration::from_micros(4096));
        measured
    }

    #[test]
    fn a_move_switches_after_its_urgent_rounds_or_announces_what_does_not_fit() {
        let verdict = Verdict::Another;
        let begun = Standing { left: 5000, verdict, sent: 6000, urgent: 0, may_go_on: true };
        let next = |standing| switch().next(&measured(), &standing);
        assert_eq!(next(begun), Step::Round);
        let stuck = Standing { verdict: Verdict::Stuck, ..begun };
        assert_eq!(next(stuck), Step::Announce);
        let near = Standing { left: 100, ..stuck };
        assert_eq!(next(near), Step::UrgentRound);
        assert_eq!(next(Standing { urgent: 3, sent: 100, ..near }), Step::Stop);
        assert_eq!(next(Standing { urgent: 3, sent: 200, ..near }), Step::UrgentRound, "it halves");
        assert_eq!(next(Standing { may_go_on: false, ..near }), Step::Stop);
        assert!(switch().begins(&measured(), 500, true));
        assert!(!switch().begins(&measured(), 500, false));
        assert!(!switch().begins(&measured(), 5000, true));
    }

    #[test]
    fn without_post_copy_a_strict_move_fails_and_another_stops_anyway() {
        let verdict = Verdict::Stuck;
        let many = Standing { left: 5000, verdict, sent: 5000, urgent: 0, may_go_on: true };
        let alone = Switch { follow: false, ..switch() };
        assert_eq!(alone.next(&measured(), &many), Step::Stop);
        let expected = alone.budget.expected(&measured(), 5000);
        let strict = Switch { strict: true, ..alone };
        assert_eq!(strict.next(&measured(), &many), Step::Fail(expected));
        let hybrid = Switch { more_rounds: false, ..switch() };
        assert_eq!(hybrid.next(&measured(), &many), Step::Announce);
    }
}
