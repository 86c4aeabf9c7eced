//! Predicts what the switch will cost, from measurements in this move.

use std::time::Duration;

use crate::PAGE;

/// Approximate bytes of a VM's state: registers, FPU, devices.
const STATE: u64 = 4096;
/// From the source's last message to the first instruction, without the network latency.
const RUN: Duration = Duration::from_micros(40);
/// Rounds shorter than this measure latency rather than bandwidth, in bytes.
const SHORT: u64 = 64 << 10;
/// This few pages may be sent with the commit however slow the link is.
const FEW: usize = 64;
/// Most pages sent in the blackout when post-copy follows: those that the guest touches at once.
const HOT_MAX: usize = 128;

/// What has been measured so far.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Measured {
    /// The shortest round trip.
    round_trip: Option<Duration>,
    /// Bytes of the rounds that were long enough to measure bandwidth, and how long they took.
    bytes: u64,
    took: Duration,
    /// How long the destination takes to apply a state.
    apply: Duration,
    /// How long the guest takes to stop.
    quiesce: Duration,
}

impl Measured {
    /// With nothing measured, and the time that the guest is expected to take to stop.
    #[must_use]
    pub fn new(quiesce: Duration) -> Self {
        Self { quiesce, ..Self::default() }
    }

    /// A message was sent and answered at once.
    pub fn answered(&mut self, took: Duration) {
        self.round_trip = Some(self.round_trip.map_or(took, |before| before.min(took)));
    }

    /// The destination reported how long it takes to apply a state.
    pub fn applied(&mut self, took: Duration) {
        self.apply = took;
    }

    /// A round was sent and confirmed.
    pub fn round(&mut self, bytes: u64, took: Duration) {
        if bytes < SHORT {
            self.answered(took);
        } else {
            self.bytes += bytes;
            self.took += took.saturating_sub(self.round_trip.unwrap_or_default());
        }
    }

    /// How long this many pages take on the wire and into the destination's memory. `None` if no
    /// round was long enough to measure.
    #[must_use]
    pub fn time_for(&self, pages: usize) -> Option<Duration> {
        self.time_for_bytes(pages as u64 * PAGE as u64)
    }

    fn time_for_bytes(&self, bytes: u64) -> Option<Duration> {
        let ns = (self.took.as_nanos() * u128::from(bytes)).checked_div(self.bytes.into())?;
        Some(Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX)))
    }

    /// The blackout with this many pages in it: the guest quiesces; pages and state are transferred
    /// and applied; and, unless the commit is sent `together` with them, the answer comes back and
    /// the commit is sent.
    #[must_use]
    pub fn blackout(&self, pages: usize, together: bool) -> Duration {
        let ways = self.round_trip.unwrap_or_default() * if together { 1 } else { 3 } / 2;
        let sending = [self.time_for(pages), self.time_for_bytes(STATE)]
            .into_iter()
            .flatten()
            .sum::<Duration>();
        self.quiesce + sending + self.apply + ways + RUN
    }

    /// The number of pages that fit a blackout of at most `most`.
    #[must_use]
    pub fn pages_within(&self, most: Duration, together: bool) -> usize {
        let left = most.saturating_sub(self.blackout(0, together)).as_nanos();
        match self.took.as_nanos() {
            0 => usize::MAX,
            took => usize::try_from(left * u128::from(self.bytes) / took / PAGE as u128)
                .unwrap_or(usize::MAX),
        }
    }
}

/// The blackout that a move may have.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Budget {
    /// The longest allowed.
    pub max_blackout: Duration,
    /// Whether the commit may be sent together with the state when little is left to send.
    pub together: bool,
}

impl Budget {
    /// The predicted blackout with this many pages in it.
    #[must_use]
    pub fn expected(&self, measured: &Measured, pages: usize) -> Duration {
        measured.blackout(pages, self.goes_together(measured, pages))
    }

    /// Whether so few pages are left that the commit is sent together with them and the state.
    #[must_use]
    pub fn goes_together(&self, measured: &Measured, pages: usize) -> bool {
        let soon = || measured.time_for(pages).is_some_and(|time| time <= self.max_blackout);
        self.together && (pages <= FEW || soon())
    }

    /// How many pages to send in the blackout before post-copy: half of what would fit, as more
    /// will have changed by then.
    #[must_use]
    pub fn room_for_hot(&self, measured: &Measured) -> usize {
        let room = measured.pages_within(self.max_blackout, self.together);
        (room / 2).min(HOT_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const US: Duration = Duration::from_micros(1);

    #[test]
    fn the_parts_add_up() {
        let mut m = Measured::new(100 * US);
        m.answered(40 * US);
        m.answered(60 * US);
        m.applied(50 * US);
        m.round(1 << 20, 1024 * US + 40 * US);
        assert_eq!(m.time_for(256), Some(1024 * US));
        assert_eq!(m.blackout(0, false), (100 + 4 + 50 + 60) * US + RUN);
        assert_eq!(m.blackout(0, true), (100 + 4 + 50 + 20) * US + RUN);
        assert_eq!(m.blackout(10, true) - m.blackout(0, true), 40 * US);
        // A short round measures the round trip.
        m.round(16, 20 * US);
        assert_eq!(m.blackout(0, false), (100 + 4 + 50 + 30) * US + RUN);
    }

    proptest! {
        /// The number of pages that is reported to fit does fit.
        #[test]
        fn pages_within_a_budget_fit_it(bytes in SHORT..1 << 40, took_us in 1..10_000_000_u64,
            budget_us in 0..100_000_u64, together: bool) {
            let mut m = Measured::new(50 * US);
            m.round(bytes, took_us as u32 * US);
            let budget = budget_us as u32 * US;
            let pages = m.pages_within(budget, together);
            if budget > m.blackout(0, together) {
                prop_assert!(m.blackout(pages, together) <= budget + US);
            } else {
                prop_assert_eq!(pages, 0);
            }
        }
    }
}
