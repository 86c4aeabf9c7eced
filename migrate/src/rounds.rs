//! Which pages are sent when, and when rounds end.

use std::{collections::VecDeque, time::Duration};

use crate::pages::Pages;

/// When rounds end.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Policy {
    /// Rounds end as soon as the pages left take no longer than this on the wire …
    pub last_round: Duration,
    /// … or after this many.
    pub rounds_max: u32,
}

impl Default for Policy {
    /// A twentieth of a millisecond for the last pages: the rest of the blackout is state and round
    /// trips.
    fn default() -> Self {
        Self { last_round: Duration::from_micros(50), rounds_max: 12 }
    }
}

/// Most rounds of a move, including the one that names the post-copy pages. A source sends no more,
/// for whatever reason, and a destination accepts no more: what a peer does is bounded (rule R4).
pub const ROUNDS_MAX: u32 = 64;

/// How many of the latest sets of changed pages are remembered, to find the pages that change all
/// the time.
const REMEMBERED: usize = 4;

/// The pages left to send.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Rounds {
    policy: Policy,
    left: Pages,
    /// Neither sent nor left: see [`leave_out`](Self::leave_out).
    out: Pages,
    done: u32,
    /// Sets of changed pages, the latest first.
    changed: VecDeque<Pages>,
    /// Number of pages that changed during the round before.
    last_dirty: usize,
}

impl Rounds {
    /// All pages are left to send.
    #[must_use]
    pub fn new(pages: usize, policy: Policy) -> Self {
        Self {
            policy,
            left: Pages::all(pages),
            out: Pages::none(pages),
            done: 0,
            changed: VecDeque::new(),
            last_dirty: usize::MAX,
        }
    }

    /// The pages of the next round. Hinted pages are not sent now but stay left, as they may matter
    /// later.
    #[must_use]
    pub fn next(&mut self, page_hints: &Pages) -> Pages {
        let mut now = self.left.clone();
        now.take_out(page_hints);
        self.left.keep(page_hints);
        self.out.take_out(&now);
        now
    }

    /// Leaves out pages that lost their content before they were sent: they matter again only when
    /// they change, and are not looked at before.
    pub fn leave_out(&mut self, pages: &Pages) {
        let mut out = self.left.clone();
        out.keep(pages);
        self.left.take_out(&out);
        self.out.add(&out);
    }

    /// Pages that were never sent, or not since they changed.
    #[must_use]
    pub fn unsent(&self) -> Pages {
        let mut pages = self.left.clone();
        pages.add(&self.out);
        pages
    }

    /// A round has been sent.
    pub fn sent(&mut self) {
        self.done += 1;
    }

    /// Records the pages that changed since the last call, which take `time` on the wire. Returns
    /// whether another round is of any use.
    #[must_use]
    pub fn changed(&mut self, dirty: &Pages, time: Duration) -> bool {
        self.left.add(dirty);
        self.changed.truncate(REMEMBERED - 1);
        self.changed.push_front(dirty.clone());
        let dirty = dirty.len();
        // A round that did not shrink the rest by a fifth will not converge.
        let stuck = dirty.saturating_mul(5) > self.last_dirty.saturating_mul(4);
        self.last_dirty = dirty;
        !stuck && self.done < self.policy.rounds_max && time > self.policy.last_round
    }

    /// Pages left to send: they changed since they were sent, or were neither sent nor [left
    /// out](Self::leave_out).
    #[must_use]
    pub fn left(&self) -> &Pages {
        &self.left
    }

    /// The last pages: those left and those changed until the stop, without those that the stopped
    /// guest hints, which stay [left](Self::left) for good.
    #[must_use]
    pub fn last(&mut self, dirty: &Pages, page_hints: &Pages) -> Pages {
        self.left.add(dirty);
        self.next(page_hints)
    }

    /// At most `most` of `pages`: those that changed most often of late, which the guest will touch
    /// first.
    #[must_use]
    pub fn hottest(&self, pages: &Pages, most: usize) -> Pages {
        let mut hot = Pages::none(pages.limit());
        let mut room = most;
        for often in (1..=self.changed.len()).rev() {
            // Pages in all of the `often` latest sets.
            let mut level = pages.clone();
            self.changed.iter().take(often).for_each(|set| level.keep(set));
            level.take_out(&hot);
            for page in level.iter().take(room) {
                hot.insert(page);
            }
            room = most - hot.len();
        }
        hot
    }

    /// Whether one more round is allowed, with room for the round that names the post-copy pages.
    #[must_use]
    pub fn may_go_on(&self) -> bool {
        self.done + 1 < ROUNDS_MAX
    }

    /// Rounds sent while the guest ran.
    #[must_use]
    pub fn done(&self) -> u32 {
        self.done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMIT: usize = 100;

    fn set(v: &[usize]) -> Pages {
        let mut p = Pages::none(LIMIT);
        v.iter().for_each(|n| p.insert(*n));
        p
    }

    proptest! {
        /// In whatever order pages are written and hinted: at the end every page that matters was
        /// sent after its last change.
        #[test]
        fn nothing_that_matters_stays_behind(
            steps in prop::collection::vec((prop::collection::vec(0..LIMIT, 0..40),
                prop::collection::vec(0..LIMIT, 0..40)), 1..10),
            lost in prop::collection::vec(0..LIMIT, 0..40),
        ) {
            let mut rounds = Rounds::new(LIMIT, Policy::default());
            let mut version = [1_u32; LIMIT];
            let mut there = [0_u32; LIMIT];
            let (last, running) = steps.split_last().unwrap();
            for (n, (dirty, page_hints)) in running.iter().enumerate() {
                for page in rounds.next(&set(page_hints)).iter() { there[page] = version[page]; }
                if n == 0 {
                    // Their content is lost, so any content is right.
                    let mut lost = set(&lost);
                    lost.keep(&set(page_hints));
                    rounds.leave_out(&lost);
                    lost.iter().for_each(|page| there[page] = version[page]);
                    prop_assert!(lost.iter().all(|page| !rounds.left().contains(page)));
                    prop_assert!(lost.iter().all(|page| rounds.unsent().contains(page)));
                }
                rounds.sent();
                dirty.iter().for_each(|n| version[*n] += 1);
                let _ = rounds.changed(&set(dirty), Duration::ZERO);
            }
            last.0.iter().for_each(|n| version[*n] += 1);
            let page_hints = set(&last.1);
            for page in rounds.last(&set(&last.0),
                &page_hints).iter() { there[page] = version[page]; }
            for page in 0..LIMIT {
                prop_assert!(there[page] == version[page] || page_hints.contains(page), "page \
                    {}", page);
            }
        }
    }

    #[test]
    fn rounds_end_when_the_rest_fits_or_does_not_shrink() {
        let ms = Duration::from_millis;
        let mut rounds = Rounds::new(LIMIT, Policy::default());
        let _ = rounds.next(&Pages::none(LIMIT));
        rounds.sent();
        let many: Vec<usize> = (0..50).collect();
        assert!(rounds.changed(&set(&many), ms(50)), "50 ms of pages are too long");
        let _ = rounds.next(&Pages::none(LIMIT));
        rounds.sent();
        assert!(!rounds.changed(&set(&many), ms(50)), "as many again: it will not shrink");
        assert!(
            !rounds.changed(&set(&[1]), Duration::from_micros(1)),
            "what is left takes no time"
        );
    }

    #[test]
    fn the_hottest_are_those_that_always_change() {
        let mut rounds = Rounds::new(LIMIT, Policy::default());
        for dirty in [&[1, 2, 3, 4][..], &[3, 4, 5], &[4, 5, 6]] {
            let _ = rounds.changed(&set(dirty), Duration::ZERO);
        }
        let all = Pages::all(LIMIT);
        let hottest = |most| rounds.hottest(&all, most).iter().collect::<Vec<_>>();
        assert_eq!(hottest(1), [4]);
        assert_eq!(hottest(2), [4, 5]);
        assert_eq!(hottest(9), [4, 5, 6], "what did not change of late is not hot");
        assert_eq!(rounds.hottest(&set(&[6, 7]), 9), set(&[6]));
        assert!(hottest(0).is_empty());
    }
}
