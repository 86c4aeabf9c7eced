//! What a VM went through on all its hosts. It moves with the VM: the process at the source has
//! ended before anyone queries it.

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

/// A histogram of durations.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Histogram {
    /// How many are in each bucket of [`BOUNDS_NS`], and above.
    pub counts: [u64; BOUNDS_NS.len() + 1],
    /// The sum of all of them, in nanoseconds.
    pub sum_ns: u64,
}

impl Histogram {
    pub(super) fn add(&mut self, took: Duration) {
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_NS.partition_point(|bound| *bound < ns);
        // Values from a peer are not trusted.
        self.counts[bucket] = self.counts[bucket].saturating_add(1);
        self.sum_ns = self.sum_ns.saturating_add(ns);
    }

    /// The number of durations.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().fold(0, |sum, n| sum.saturating_add(*n))
    }
}

/// How a move ended, as seen by the VM that was to move.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MoveOutcome {
    /// It runs elsewhere now.
    Arrived {
        /// How long no instruction of the guest ran; `None` for a paused VM.
        blackout: Option<Duration>,
    },
    /// It continues at the source, on request.
    Cancelled,
    /// It continues at the source.
    Failed,
}

/// The part of a VM's history that moves with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct History {
    /// Successful moves.
    pub moves_arrived: u64,
    /// Cancelled moves.
    pub moves_cancelled: u64,
    /// Failed moves.
    pub moves_failed: u64,
    /// The blackout of each successful move, as measured by its destination: from the source's last
    /// message before the switch to the guest's first instruction. It includes that message's
    /// transit time, so it is an upper bound.
    pub blackout: Histogram,
    /// How long the guest took to quiesce on request, or to stop where it need not quiesce.
    pub quiesce: Histogram,
    /// How often it did not quiesce within its time limit, and was stopped where it was.
    pub quiesce_unanswered: u64,
    /// The brownout of each successful move, as measured by its destination; moves that it could
    /// not measure are not included. See [`migrate::brownout`].
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
