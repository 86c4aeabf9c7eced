//! Which pages each round copies, and which are left.

use std::{collections::VecDeque, time::Duration};

use super::{Policy, Verdict};
use crate::page_set::PageSet;

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
    left: PageSet,
    /// Neither sent nor left: see [`leave_out`](Self::leave_out).
    out: PageSet,
    done: u32,
    /// Sets of changed pages, the latest first.
    changed: VecDeque<PageSet>,
    /// Number of pages that changed during the round before, if it is known.
    before: Option<usize>,
}

impl Rounds {
    /// These pages are left to send.
    #[must_use]
    pub fn new(left: PageSet, policy: Policy) -> Self {
        let out = PageSet::none(left.limit());
        Self { policy, left, out, done: 0, changed: VecDeque::new(), before: None }
    }

    /// The pages of the next round. Hinted pages are not sent now but stay left, as they may matter
    /// later.
    #[must_use]
    pub fn next(&mut self, page_hints: &PageSet) -> PageSet {
        let mut now = self.left.clone();
        now.take_out(page_hints);
        self.left.keep(page_hints);
        self.out.take_out(&now);
        if self.policy.judge_first {
            self.before.get_or_insert(now.len());
        }
        now
    }

    /// Leaves out pages that lost their content before they were sent: they matter again only when
    /// they change, and are not looked at before.
    pub fn leave_out(&mut self, pages: &PageSet) {
        let mut out = self.left.clone();
        out.keep(pages);
        self.left.take_out(&out);
        self.out.add(&out);
    }

    /// Pages that were never sent, or not since they changed.
    #[must_use]
    pub fn unsent(&self) -> PageSet {
        let mut pages = self.left.clone();
        pages.add(&self.out);
        pages
    }

    /// A round has been sent.
    pub fn sent(&mut self) {
        self.done += 1;
    }

    /// Whether another round is of any use when `dirty` pages, which take `time` to copy, changed
    /// during the last one.
    #[must_use]
    pub fn verdict(&self, dirty: usize, time: Duration) -> Verdict {
        self.policy.verdict(dirty, time, self.before, self.done)
    }

    /// Records the pages that changed since the last call.
    pub fn changed(&mut self, dirty: &PageSet) {
        self.left.add(dirty);
        self.changed.truncate(REMEMBERED - 1);
        self.changed.push_front(dirty.clone());
        self.before = Some(dirty.len());
    }

    /// Pages left to send: they changed since they were sent, or were neither sent nor [left
    /// out](Self::leave_out).
    #[must_use]
    pub fn left(&self) -> &PageSet {
        &self.left
    }

    /// The last pages: those left and those changed until the stop, without those that the stopped
    /// guest hints, which stay [left](Self::left) for good.
    #[must_use]
    pub fn last(&mut self, dirty: &PageSet, page_hints: &PageSet) -> PageSet {
        self.left.add(dirty);
        self.next(page_hints)
    }

    /// At most `most` of `pages`: those that changed most often of late, which the guest will touch
    /// first.
    #[must_use]
    pub fn hottest(&self, pages: &PageSet, most: usize) -> PageSet {
        let mut hot = PageSet::none(pages.limit());
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

    fn set(v: &[usize]) -> PageSet {
        let mut p = PageSet::none(LIMIT);
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
            let mut rounds = Rounds::new(PageSet::all(LIMIT), Policy::default());
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
                rounds.changed(&set(dirty));
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
    fn each_round_is_compared_to_the_one_before() {
        let many: Vec<usize> = (0..50).collect();
        let none = PageSet::none(LIMIT);
        let time = Duration::from_secs(1);
        for (judge_first, first) in [(false, Verdict::Another), (true, Verdict::Stuck)] {
            let policy = Policy { judge_first, ..Policy::default() };
            let mut rounds = Rounds::new(set(&many), policy);
            let _ = rounds.next(&none);
            rounds.sent();
            assert_eq!(rounds.verdict(50, time), first, "as many as it copied");
            rounds.changed(&set(&many));
            let _ = rounds.next(&none);
            rounds.sent();
            assert_eq!(rounds.verdict(50, time), Verdict::Stuck, "as many again");
            assert_eq!(rounds.verdict(40, time), Verdict::Another);
            rounds.changed(&set(&many[..40]));
            assert_eq!(rounds.verdict(40, time), Verdict::Stuck);
        }
    }

    #[test]
    fn the_hottest_are_those_that_always_change() {
        let mut rounds = Rounds::new(PageSet::all(LIMIT), Policy::default());
        for dirty in [&[1, 2, 3, 4][..], &[3, 4, 5], &[4, 5, 6]] {
            rounds.changed(&set(dirty));
        }
        let all = PageSet::all(LIMIT);
        let hottest = |most| rounds.hottest(&all, most).iter().collect::<Vec<_>>();
        assert_eq!(hottest(1), [4]);
        assert_eq!(hottest(2), [4, 5]);
        assert_eq!(hottest(9), [4, 5, 6], "what did not change of late is not hot");
        assert_eq!(rounds.hottest(&set(&[6, 7]), 9), set(&[6]));
        assert!(hottest(0).is_empty());
    }
}
