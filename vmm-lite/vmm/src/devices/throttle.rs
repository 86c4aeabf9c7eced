//! Limits a device to its [`Rate`]s, and accounts for the waits.

use super::rate::{Bucket, Rate};
use serde::{Deserialize, Serialize};
use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

/// How much accumulates before a throttled device continues: a wake-up for each packet would cost
/// more than the packet.
const GATHER: Duration = Duration::from_millis(1);

/// The rates of a VM: limits of this process, which are not part of the VM's state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Rates {
    /// Rates of the network, each direction by itself.
    pub net: NetRate,
    /// Bytes that the guest prints.
    pub console: Option<Rate>,
}

/// Rates of one direction of a network device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct NetRate {
    /// Bytes of frames.
    pub bytes: Option<Rate>,
    /// Frames, as they pass the TAP device: a large TCP segment that the host splits later is one.
    pub packets: Option<Rate>,
}

/// How often and for how long a device was throttled.
#[derive(Debug, Default)]
pub struct HeldBack {
    times: AtomicU64,
    ns: AtomicU64,
}

impl HeldBack {
    /// How often.
    #[must_use]
    pub fn times(&self) -> u64 {
        self.times.load(Relaxed)
    }

    /// For how long in total, in nanoseconds; a wait counts when it is over.
    #[must_use]
    pub fn ns(&self) -> u64 {
        self.ns.load(Relaxed)
    }
}

/// One direction of a device. Without rates it never throttles.
#[derive(Debug, Default)]
pub struct Throttle {
    bytes: Option<Bucket>,
    packets: Option<Bucket>,
    /// Since when something waits.
    held_since: Option<Instant>,
}

impl Throttle {
    /// For one direction of the network.
    #[must_use]
    pub fn new(rate: NetRate) -> Self {
        let bucket = |rate: Option<Rate>| rate.map(Bucket::new);
        Self { bytes: bucket(rate.bytes), packets: bucket(rate.packets), held_since: None }
    }

    fn buckets(&self) -> impl Iterator<Item = &Bucket> {
        self.bytes.iter().chain(&self.packets)
    }

    /// Whether a packet may pass, whatever its length.
    #[must_use]
    pub fn admits(&self, now: Instant) -> bool {
        self.buckets().all(|bucket| bucket.tokens(now) > 0)
    }

    /// How many bytes may pass.
    #[must_use]
    pub fn bytes(&self, now: Instant) -> u64 {
        self.bytes.as_ref().map_or(u64::MAX, |bucket| bucket.tokens(now))
    }

    /// Notes that something must wait. Returns for how long.
    pub fn hold(&mut self, now: Instant, account: &HeldBack) -> Duration {
        if self.held_since.is_none() {
            self.held_since = Some(now);
            account.times.fetch_add(1, Relaxed);
        }
        let wait = |bucket: &Bucket| bucket.wait(bucket.rate().tokens_in(GATHER), now);
        self.buckets().map(wait).max().unwrap_or_default()
    }

    /// Notes that this many bytes have passed, in one packet if this direction has packets.
    pub fn passed(&mut self, bytes: usize, now: Instant, account: &HeldBack) {
        if let Some(since) = self.held_since.take() {
            let ns = now.saturating_duration_since(since).as_nanos();
            account.ns.fetch_add(u64::try_from(ns).unwrap_or(u64::MAX), Relaxed);
        }
        if let Some(bucket) = &mut self.bytes {
            bucket.take(bytes as u64, now);
        }
        if let Some(bucket) = &mut self.packets {
            bucket.take(1, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_rates_nothing_waits() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        let account = HeldBack::default();
        for _ in 0..1000 {
            assert!(throttle.admits(now) && throttle.bytes(now) == u64::MAX);
            throttle.passed(1 << 20, now, &account);
        }
        assert_eq!((account.times(), account.ns()), (0, 0));
    }

    #[test]
    fn the_stricter_of_two_rates_throttles_and_is_accounted_for() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let net =
            NetRate { bytes: Some(Rate::of(1_000_000, 100_000)), packets: Some(Rate::of(100, 2)) };
        let (mut throttle, account) = (Throttle::new(net), HeldBack::default());
        throttle.passed(60, start, &account);
        assert!(throttle.admits(start));
        throttle.passed(60, start, &account);
        assert!(!throttle.admits(start), "two packets, however small");
        assert_eq!(throttle.hold(start, &account), Duration::from_millis(10));
        assert_eq!(throttle.hold(at(4), &account), Duration::from_millis(6), "as long as before");
        assert!(throttle.admits(at(10)));
        throttle.passed(200_000, at(10), &account);
        assert_eq!((account.times(), account.ns()), (1, 10_000_000));
        assert!(!throttle.admits(at(60)), "bytes, of which there were too many at once");
        // Its debt, and what accrues in a millisecond.
        assert_eq!(throttle.hold(at(60), &account), Duration::from_millis(51));
        assert_eq!(account.times(), 2);
    }
}
