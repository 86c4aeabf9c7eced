//! Limits the rate of sent memory while the guest runs.

use std::time::{Duration, Instant};

/// How far sending may run ahead of the rate, as a time: wake-ups are not exact to the microsecond.
const AHEAD: Duration = Duration::from_millis(2);

/// A rate limit in bytes per second, or none.
#[derive(Debug)]
pub struct Pace {
    rate: Option<u64>,
    /// When the bytes sent so far would be sent at the rate.
    due: Option<Instant>,
}

impl Pace {
    /// At most `rate` bytes per second.
    pub fn new(rate: Option<u64>) -> Self {
        Self { rate, due: None }
    }

    /// Notes that this many bytes were sent; returns how long to wait before the next.
    pub fn sent(&mut self, bytes: u64, now: Instant) -> Duration {
        let Some(rate) = self.rate else { return Duration::ZERO };
        // Idle time does not allow a higher rate later.
        let due = self.due.map_or(now, |due| due.max(now.checked_sub(AHEAD).unwrap_or(now)));
        let ns = u128::from(bytes) * 1_000_000_000 / u128::from(rate.max(1));
        let due = due + Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX));
        self.due = Some(due);
        let wait = due.saturating_duration_since(now);
        if wait > AHEAD { wait } else { Duration::ZERO }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_is_kept() {
        let mut now = Instant::now();
        let began = now;
        let mut pace = Pace::new(Some(1_000_000));
        for _ in 0..1000 {
            now += pace.sent(5000, now);
        }
        let took = now - began;
        assert!(
            took >= Duration::from_millis(4990) && took <= Duration::from_millis(5010),
            "{took:?}"
        );
        assert_eq!(Pace::new(None).sent(u64::MAX, now), Duration::ZERO);
    }

    #[test]
    fn idle_time_is_not_made_up_for() {
        let now = Instant::now();
        let mut pace = Pace::new(Some(1_000_000));
        let _ = pace.sent(1000, now);
        let later = now + Duration::from_secs(10);
        assert!(pace.sent(100_000, later) > Duration::from_millis(90));
    }
}
