//! The guest's clock: the TSC scaled to nanoseconds, published in the control page.
//!
//! Monotonic time continues through pauses and moves and never goes back (rule R6); the clock is
//! rebased only while the vCPU is stopped.

use migrate::input_log::Clock as Published;
use serde::{Deserialize, Serialize};
use std::{
    arch::x86_64::_rdtsc,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use vmm_lite_interface::control::PvClock;

/// The host's (and guest's) time stamp counter.
#[must_use]
pub fn tsc() -> u64 {
    // SAFETY: every x86-64 CPU has `rdtsc`, and Linux permits it to programs.
    unsafe { _rdtsc() }
}

/// A guest's clock.
#[derive(Clone, Debug)]
pub struct Clock {
    tsc_hz: u64,
    /// Nanoseconds per tick, with 32 fractional bits.
    mult: u64,
    tsc_base: u64,
    mono_base_ns: u64,
    wall_offset_ns: u64,
}

/// The clock's state that is captured.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ClockState {
    /// The guest's monotonic time at the capture.
    pub mono_ns: u64,
    /// The offset of its wall clock from that.
    pub wall_offset_ns: u64,
}

impl Clock {
    /// A clock that starts at zero now, on a host whose TSC has `tsc_hz` ticks per second.
    #[must_use]
    pub fn start(tsc_hz: u64) -> Self {
        let mult = ((1_000_000_000_u128 << 32) / u128::from(tsc_hz.max(1))) as u64;
        Self { tsc_hz, mult, tsc_base: tsc(), mono_base_ns: 0, wall_offset_ns: unix_ns() }
    }

    /// The guest's monotonic time at the counter value `tsc`.
    #[must_use]
    pub fn at(&self, tsc: u64) -> u64 {
        mono_ns(&self.published(), tsc)
    }

    /// The guest's monotonic time now.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.at(tsc())
    }

    /// The time in ns until the guest's monotonic time is `deadline_ns`; `None` for `u64::MAX`,
    /// which never comes.
    #[must_use]
    pub fn until(&self, deadline_ns: u64) -> Option<u64> {
        (deadline_ns != u64::MAX).then(|| deadline_ns.saturating_sub(self.now()))
    }

    /// The counter value `after` from now.
    #[must_use]
    pub fn tsc_in(&self, after: Duration) -> u64 {
        let ticks = after.as_nanos().saturating_mul(u128::from(self.tsc_hz)) / 1_000_000_000;
        tsc().saturating_add(u64::try_from(ticks).unwrap_or(u64::MAX))
    }

    /// The clock's state.
    #[must_use]
    pub fn capture(&self) -> ClockState {
        ClockState { mono_ns: self.now(), wall_offset_ns: self.wall_offset_ns }
    }

    /// Continues a captured clock, `away` after its capture. The wall clock follows this host's,
    /// unless that would set it back.
    pub fn apply(&mut self, state: ClockState, away: Duration) {
        self.tsc_base = tsc();
        self.mono_base_ns = state.mono_ns.saturating_add(away.as_nanos() as u64);
        let here = unix_ns().saturating_sub(self.mono_base_ns);
        self.wall_offset_ns = state.wall_offset_ns.max(here);
    }

    /// Continues a clock that was published on another host, or here long ago, where it was last
    /// read at `tsc`, `away` after that. One that was not read there continues as it is here: what
    /// the guest read before is no later.
    pub fn follow(&mut self, published: &PvClock, tsc: Option<u64>, away: Duration) {
        let was = as_published(published);
        let state = match tsc {
            Some(tsc) => {
                ClockState { mono_ns: mono_ns(&was, tsc), wall_offset_ns: was.wall_offset_ns }
            }
            None => self.capture(),
        };
        self.apply(state, away);
    }

    /// What the control page has of it.
    #[must_use]
    pub fn published(&self) -> Published {
        Published {
            tsc_base: self.tsc_base,
            mono_base_ns: self.mono_base_ns,
            mult: self.mult,
            wall_offset_ns: self.wall_offset_ns,
            tsc_hz: self.tsc_hz,
        }
    }
}

/// The clock that a control page has.
#[must_use]
pub fn as_published(clock: &PvClock) -> Published {
    let load = |word: &AtomicU64| word.load(Relaxed);
    Published {
        tsc_base: load(&clock.tsc_base),
        mono_base_ns: load(&clock.mono_base_ns),
        mult: load(&clock.mult),
        wall_offset_ns: load(&clock.wall_offset_ns),
        tsc_hz: load(&clock.tsc_hz),
    }
}

/// The monotonic time of such a clock at a counter value.
fn mono_ns(clock: &Published, tsc: u64) -> u64 {
    let ticks = tsc.saturating_sub(clock.tsc_base);
    let since = ((u128::from(ticks) * u128::from(clock.mult)) >> 32) as u64;
    clock.mono_base_ns.saturating_add(since)
}

/// The wall clock at a counter value, ns since 1970.
#[must_use]
pub fn wall_ns(clock: &Published, tsc: u64) -> u64 {
    mono_ns(clock, tsc).saturating_add(clock.wall_offset_ns)
}

fn unix_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HZ: u64 = 2_600_000_000;

    #[test]
    fn ticks_become_nanoseconds() {
        let mut clock = Clock::start(HZ);
        clock.tsc_base = 1000;
        assert_eq!(clock.at(1000), 0);
        let after_a_day = clock.at(1000 + HZ * 86_400);
        assert!(after_a_day.abs_diff(86_400_000_000_000) < 50_000, "{after_a_day}");
        assert_eq!(clock.at(999), 0, "a counter that lags counts as the base");
    }

    #[test]
    fn a_clock_that_was_not_read_elsewhere_does_not_go_back() {
        let mut clock = Clock::start(HZ);
        clock.apply(ClockState { mono_ns: 7_000_000, wall_offset_ns: 0 }, Duration::ZERO);
        let (page, read) = (PvClock::default(), clock.now());
        clock.follow(&page, None, Duration::ZERO);
        assert!(clock.now() >= read);
    }

    #[test]
    fn time_goes_on_over_a_move_and_never_back() {
        let source = Clock::start(HZ);
        let state = source.capture();
        let mut destination = Clock::start(HZ / 2);
        destination.apply(state, Duration::from_millis(3));
        let now = destination.now();
        assert!(now >= state.mono_ns + 3_000_000, "{now} after {}", state.mono_ns);
        let last = ClockState { mono_ns: u64::MAX - 1, wall_offset_ns: u64::MAX };
        destination.apply(last, Duration::from_secs(1));
        assert_eq!(destination.now(), u64::MAX, "an invalid clock does no harm");
        let ahead = ClockState { wall_offset_ns: u64::MAX / 2, ..state };
        destination.apply(ahead, Duration::ZERO);
        assert_eq!(
            destination.wall_offset_ns,
            u64::MAX / 2,
            "the wall clock does not go back either"
        );
    }
}
