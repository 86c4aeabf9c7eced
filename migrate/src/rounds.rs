//! Which pages are sent when, and when enough have been.

use std::time::Duration;

use crate::{PAGE, pages::Pages};

/// When rounds end.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Policy {
    /// How long the pages of the last round may take on the wire.
    pub last_round: Duration,
    /// Most rounds while the guest runs.
    pub rounds_max: u32,
}

impl Default for Policy {
    /// A tenth of a millisecond for the last pages: the rest of the blackout is state and round trips.
    fn default() -> Self {
        Self { last_round: Duration::from_micros(100), rounds_max: 12 }
    }
}

/// What is left to send.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Rounds {
    policy: Policy,
    left: Pages,
    done: u32,
    /// Pages that changed during the round before.
    last_dirty: usize,
    /// Bytes and time of all rounds: the link's speed as this move has it.
    bytes: u64,
    took: Duration,
    omitted: usize,
}

impl Rounds {
    /// All pages are left.
    #[must_use]
    pub fn new(pages: usize, policy: Policy) -> Self {
        Self {
            policy,
            left: Pages::all(pages),
            done: 0,
            last_dirty: usize::MAX,
            bytes: 0,
            took: Duration::ZERO,
            omitted: 0,
        }
    }

    /// The pages of the next round. Those that do not matter at this instant stay behind: they may matter later.
    #[must_use]
    pub fn next(&mut self, dont_care: &Pages) -> Pages {
        let mut now = self.left.clone();
        now.take_out(dont_care);
        self.left.keep(dont_care);
        now
    }

    /// Takes note of a round's cost.
    pub fn sent(&mut self, bytes: u64, took: Duration) {
        self.done += 1;
        self.bytes += bytes;
        self.took += took;
    }

    /// Takes note of what changed since the last time, and says whether to stop the guest now.
    #[must_use]
    pub fn changed(&mut self, dirty: &Pages) -> bool {
        self.left.add(dirty);
        let dirty = dirty.len();
        // A round that did not shrink what is left by a fifth is not going to get there.
        let stuck = dirty.saturating_mul(5) > self.last_dirty.saturating_mul(4);
        self.last_dirty = dirty;
        stuck
            || self.done >= self.policy.rounds_max
            || self.time_for(dirty) <= self.policy.last_round
    }

    /// How long so many pages take at the speed seen so far.
    #[must_use]
    pub fn time_for(&self, pages: usize) -> Duration {
        if self.bytes == 0 {
            return Duration::ZERO;
        }
        let bytes = pages as u128 * PAGE as u128;
        Duration::from_nanos((self.took.as_nanos() * bytes / u128::from(self.bytes)) as u64)
    }

    /// The last pages: what is left and what changed until the stop, but for what the stopped guest does not care for.
    #[must_use]
    pub fn last(&mut self, dirty: &Pages, dont_care: &Pages) -> Pages {
        self.left.add(dirty);
        let all = self.left.len();
        let last = self.next(dont_care);
        self.omitted = all - last.len();
        last
    }

    /// Rounds sent while the guest ran.
    #[must_use]
    pub fn done(&self) -> u32 {
        self.done
    }

    /// Pages never sent because the guest does not care for them.
    #[must_use]
    pub fn omitted(&self) -> usize {
        self.omitted
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
        /// Whatever is written and not cared for in whatever order: at the end every page that matters was sent after its last change.
        #[test]
        fn nothing_that_matters_stays_behind(
            steps in prop::collection::vec((prop::collection::vec(0..LIMIT, 0..40), prop::collection::vec(0..LIMIT, 0..40)), 1..10),
        ) {
            let mut rounds = Rounds::new(LIMIT, Policy::default());
            let mut version = [1_u32; LIMIT];
            let mut there = [0_u32; LIMIT];
            let (last, running) = steps.split_last().unwrap();
            for (dirty, dont_care) in running {
                for page in rounds.next(&set(dont_care)).iter() { there[page] = version[page]; }
                rounds.sent(4096, Duration::from_micros(1));
                dirty.iter().for_each(|n| version[*n] += 1);
                let _ = rounds.changed(&set(dirty));
            }
            last.0.iter().for_each(|n| version[*n] += 1);
            let dont_care = set(&last.1);
            for page in rounds.last(&set(&last.0), &dont_care).iter() { there[page] = version[page]; }
            for page in 0..LIMIT {
                prop_assert!(there[page] == version[page] || dont_care.contains(page), "page {}", page);
            }
        }
    }

    #[test]
    fn rounds_end_when_the_rest_fits_or_does_not_shrink() {
        let mut rounds = Rounds::new(LIMIT, Policy::default());
        let _ = rounds.next(&Pages::none(LIMIT));
        rounds.sent(100 * 4096, Duration::from_millis(100));
        let many: Vec<usize> = (0..50).collect();
        assert!(!rounds.changed(&set(&many)), "50 ms of pages do not fit 100 us");
        let _ = rounds.next(&Pages::none(LIMIT));
        rounds.sent(50 * 4096, Duration::from_millis(50));
        assert!(rounds.changed(&set(&many)), "as many again: it will not shrink");
    }
}
