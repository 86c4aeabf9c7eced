//! What a machine went through wherever it ran. It moves with the machine: the process that saw a
//! move off has ended before anybody asks it.

use migrate::brownout::Brownout;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Upper bounds of a histogram's buckets, in nanoseconds; one more bucket has no bound. From a
/// tenth of a millisecond, which a good switch takes, to a second, which no switch should.
pub const BOUNDS_NS: [u64; 12] = [
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    1_000_000_000,
];

/// Times, by how long they took.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Histogram {
    /// How many fell into each bucket of [`BOUNDS_NS`], and above.
    pub counts: [u64; BOUNDS_NS.len() + 1],
    /// Of all of them, in nanoseconds.
    pub sum_ns: u64,
}

impl Histogram {
    pub(super) fn add(&mut self, took: Duration) {
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_NS.partition_point(|bound| *bound < ns);
        // What came from a peer may be anything.
        self.counts[bucket] = self.counts[bucket].saturating_add(1);
        self.sum_ns = self.sum_ns.saturating_add(ns);
    }

    /// How many times there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().fold(0, |sum, n| sum.saturating_add(*n))
    }
}

/// How a move ended, as the machine that was to move sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MoveOutcome {
    /// It runs elsewhere now.
    Arrived {
        /// How long no instruction of the guest ran; `None` for one that is paused.
        blackout: Option<Duration>,
    },
    /// It runs on where it was: somebody wanted that.
    Cancelled,
    /// It runs on where it was.
    Failed,
}

/// What moves with a machine beside its state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct History {
    /// Moves that were made.
    pub moves_arrived: u64,
    /// Moves that were called off.
    pub moves_cancelled: u64,
    /// Moves that came to nothing otherwise.
    pub moves_failed: u64,
    /// How long the guest stood in each move that was made, as its destination knows it: from the
    /// last word that it sent before the switch to the guest's first instruction. So it holds that
    /// word's way too, and errs upwards.
    pub blackout: Histogram,
    /// How long the guest took to quiesce when it was asked to, or to stand when it need not be
    /// asked.
    pub quiesce: Histogram,
    /// How often it did not within the time it had, and was stopped where it was.
    pub quiesce_unanswered: u64,
    /// How long the guest was slower after each move that was made, as its destination knows it;
    /// what it could not tell is not in it. See [`migrate::brownout`].
    pub brownout: Histogram,
}

impl History {
    pub(super) fn moved(&mut self, outcome: MoveOutcome) {
        let count = match outcome {
            MoveOutcome::Arrived { blackout } => {
                if let Some(blackout) = blackout {
                    self.blackout.add(blackout);
                }
                &mut self.moves_arrived
            }
            MoveOutcome::Cancelled => &mut self.moves_cancelled,
            MoveOutcome::Failed => &mut self.moves_failed,
        };
        *count = count.saturating_add(1);
    }

    pub(super) fn settled(&mut self, brownout: Brownout) {
        match brownout {
            Brownout::Over(ns) | Brownout::Lasts(ns) => self.brownout.add(Duration::from_nanos(ns)),
            Brownout::Unknown => {}
        }
    }

    pub(super) fn quiesced(&mut self, took: Duration, answered: bool) {
        self.quiesce.add(took);
        self.quiesce_unanswered = self.quiesce_unanswered.saturating_add((!answered).into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        let mut histogram = Histogram::default();
        for ns in [0, 100_000, 100_001, 1_000_000_000, 1_000_000_001] {
            histogram.add(Duration::from_nanos(ns));
        }
        assert_eq!((histogram.counts[0], histogram.counts[1]), (2, 1));
        assert_eq!((histogram.counts[11], histogram.counts[12]), (1, 1));
        assert_eq!((histogram.count(), histogram.sum_ns), (5, 2_000_200_002));
    }

    #[test]
    fn a_history_from_a_peer_does_not_overflow() {
        let mut history = History { moves_arrived: u64::MAX, ..History::default() };
        history.blackout.counts = [u64::MAX; 13];
        history.moved(MoveOutcome::Arrived { blackout: Some(Duration::MAX) });
        assert_eq!((history.moves_arrived, history.blackout.count()), (u64::MAX, u64::MAX));
    }
}
