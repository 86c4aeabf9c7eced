//! Token buckets: limit how much may pass in a time.

use serde::{Deserialize, Serialize};
use std::{
    num::NonZeroU64,
    time::{Duration, Instant},
};

const SECOND: u128 = 1_000_000_000;

/// A number of tokens per second, and a burst after idle time. A token is a byte, or a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Rate {
    /// Tokens per second.
    pub per_second: NonZeroU64,
    /// Tokens in a full bucket.
    pub burst: NonZeroU64,
}

impl Rate {
    /// A rate, if both numbers are not 0.
    #[cfg(test)]
    pub fn of(per_second: u64, burst: u64) -> Self {
        let number = |n| NonZeroU64::new(n).unwrap();
        Self { per_second: number(per_second), burst: number(burst) }
    }

    /// Tokens that accrue in `time`, at least 1 and no more than the bucket holds.
    #[must_use]
    pub fn tokens_in(&self, time: Duration) -> u64 {
        let tokens = u128::from(self.per_second.get()) * time.as_nanos() / SECOND;
        u64::try_from(tokens).unwrap_or(u64::MAX).clamp(1, self.burst.get())
    }
}

/// A bucket of tokens, initially full. It has no clock: the caller passes the time.
///
/// A piece that must be taken whole may take more tokens than the bucket has. The bucket is then in
/// debt, and has tokens again once that is repaid: in any time `t`, at most `burst + rate × t`
/// tokens are taken, and the last piece.
#[derive(Clone, Debug)]
pub struct Bucket {
    rate: Rate,
    /// When it is full again, if nothing is taken; `None`: it is full.
    full_at: Option<Instant>,
}

impl Bucket {
    /// A full bucket.
    #[must_use]
    pub fn new(rate: Rate) -> Self {
        Self { rate, full_at: None }
    }

    /// Its rate.
    #[must_use]
    pub fn rate(&self) -> Rate {
        self.rate
    }

    fn until_full(&self, now: Instant) -> Duration {
        self.full_at.map_or(Duration::ZERO, |full_at| full_at.saturating_duration_since(now))
    }

    /// Tokens in it; 0 if it is in debt.
    #[must_use]
    pub fn tokens(&self, now: Instant) -> u64 {
        let missing = self.until_full(now).as_nanos() * u128::from(self.rate.per_second.get());
        let missing = u64::try_from(missing.div_ceil(SECOND)).unwrap_or(u64::MAX);
        self.rate.burst.get().saturating_sub(missing)
    }

    /// Takes `n` tokens, even if it has fewer.
    pub fn take(&mut self, n: u64, now: Instant) {
        // Rounded up, so that the rate is never exceeded.
        let takes = (u128::from(n) * SECOND).div_ceil(u128::from(self.rate.per_second.get()));
        let from = self.full_at.map_or(now, |full_at| full_at.max(now));
        self.full_at = Some(from.checked_add(nanoseconds(takes)).unwrap_or(from));
    }

    /// How long until there are `n` tokens, or a full bucket if that is fewer.
    #[must_use]
    pub fn wait(&self, n: u64, now: Instant) -> Duration {
        let lacks = u128::from(self.rate.burst.get().saturating_sub(n));
        let may_lack = nanoseconds(lacks * SECOND / u128::from(self.rate.per_second.get()));
        self.until_full(now).saturating_sub(may_lack)
    }
}

fn nanoseconds(n: u128) -> Duration {
    Duration::from_nanos(u64::try_from(n).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_bucket_is_full_at_first_and_fills_up_to_its_size() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut bucket = Bucket::new(Rate::of(1000, 50));
        assert_eq!((bucket.tokens(start), bucket.wait(50, start)), (50, Duration::ZERO));
        bucket.take(50, start);
        assert_eq!(bucket.tokens(start), 0);
        assert_eq!(bucket.tokens(at(10)), 10);
        assert_eq!(bucket.wait(10, start), Duration::from_millis(10));
        assert_eq!(bucket.tokens(at(3_600_000)), 50, "a long rest makes no larger burst");
        assert_eq!(bucket.wait(60, start), Duration::from_millis(50), "more than it ever holds");
    }

    #[test]
    fn debt_is_paid_before_there_is_a_token() {
        let start = Instant::now();
        let mut bucket = Bucket::new(Rate::of(1000, 10));
        bucket.take(110, start);
        assert_eq!(bucket.wait(1, start), Duration::from_millis(101));
        assert_eq!(bucket.tokens(start + Duration::from_millis(100)), 0);
        assert_eq!(bucket.tokens(start + Duration::from_millis(101)), 1);
    }

    #[test]
    fn time_that_goes_back_gives_no_tokens() {
        let start = Instant::now() + Duration::from_secs(9);
        let mut bucket = Bucket::new(Rate::of(10, 10));
        bucket.take(10, start);
        assert_eq!(bucket.tokens(start - Duration::from_secs(5)), 0);
        bucket.take(1, start - Duration::from_secs(5));
        assert_eq!(bucket.wait(10, start), Duration::from_millis(1100));
    }

    fn rates() -> impl Strategy<Value = Rate> {
        (1..40_000_000_000_u64, 1..100_000_000_u64).prop_map(|(r, b)| Rate::of(r, b))
    }

    proptest! {
        /// Pieces are sent whenever there is a token, as packets are.
        #[test]
        fn no_time_has_more_than_its_rate_and_a_burst(
            rate in rates(),
            steps in prop::collection::vec((0..5_000_000_u64, 1..70_000_u64), 1..200),
        ) {
            let (mut bucket, mut now) = (Bucket::new(rate), Instant::now());
            let mut went: Vec<(Instant, u64)> = Vec::new();
            for (ns, piece) in steps {
                now += Duration::from_nanos(ns);
                if bucket.tokens(now) > 0 {
                    bucket.take(piece, now);
                    went.push((now, piece));
                }
            }
            for first in 0..went.len() {
                let mut sum = 0;
                for (at, piece) in &went[first..] {
                    let time = (*at - went[first].0).as_nanos();
                    let may = u128::from(rate.burst.get())
                        + (u128::from(rate.per_second.get()) * time).div_ceil(SECOND);
                    prop_assert!(sum < may.max(1), "{sum} went before, and {may} may have");
                    sum += u128::from(*piece);
                }
            }
        }

        /// Nothing waits longer than necessary, and after the wait it is sent.
        #[test]
        fn tokens_are_there_after_the_wait_and_not_before(
            rate in rates(),
            takes in prop::collection::vec((0..2_000_000_000_u64, 0..1_000_000_u64), 1..20),
            wanted in 1..100_000_000_u64,
        ) {
            let (mut bucket, mut now) = (Bucket::new(rate), Instant::now());
            for (ns, n) in takes {
                now += Duration::from_nanos(ns);
                bucket.take(n, now);
            }
            let (wait, gets) = (bucket.wait(wanted, now), wanted.min(rate.burst.get()));
            prop_assert!(bucket.tokens(now + wait) >= gets);
            if let Some(earlier) = wait.checked_sub(Duration::from_nanos(1)) {
                prop_assert!(bucket.tokens(now + earlier) < gets);
            }
        }

        /// A user that always takes all tokens gets the full rate.
        #[test]
        fn a_constant_user_gets_the_full_rate(rate in rates(), pieces in 2..500_usize) {
            let start = Instant::now();
            let (mut bucket, mut now, mut sum) = (Bucket::new(rate), start, 0_u128);
            for _ in 0..pieces {
                now += bucket.wait(1, now);
                bucket.take(1500, now);
                sum += 1500;
            }
            let ns = (now - start).as_nanos();
            let rated = u128::from(rate.per_second.get()) * ns / SECOND;
            // Rounding up costs a nanosecond for each piece, and the last piece is on credit.
            let slack = u128::from(rate.per_second.get()) * (pieces as u128 + 1) / SECOND + 1;
            prop_assert!(sum + slack >= rated, "{sum} of {rated} in {ns} ns");
        }
    }
}
