//! How long a guest is slower than usual after a move, and by how much.
//!
//! At the destination a page costs the guest time that it did not cost at the source: KVM fills in
//! its second tables (shadow or nested) when the guest first touches the page, and a post-copy page
//! has to arrive. [`Watch`] measures that cost. It does not measure the program's own work, which
//! differs between programs. It takes [`Sample`]s, about one per [`WINDOW`]. The guest is slow in a
//! window if it lost a tenth or more of the time in which it wanted to run. The brownout ends with
//! the last slow window that is followed by [`STEADY`] windows that are not slow.
//!
//! [`Watch`] does not see cold CPU caches, a host with less CPU time for the guest, or a network
//! that has yet to learn where the guest is.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Minimum length of a window.
pub const WINDOW: Duration = Duration::from_millis(1);
/// The brownout is over after this many consecutive windows without a great loss.
pub const STEADY: u32 = 5;
/// A window is not judged if the guest ran for less than this fraction of it and wanted to run
/// more.
const LEAST: u32 = 20;
/// Longest time that the guest is watched.
pub const TIMEOUT: Duration = Duration::from_secs(1);

/// Counters at one moment, counted since the first instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sample {
    /// Since the guest's first instruction.
    pub at: Duration,
    /// CPU time of the guest, including KVM's work for it.
    pub ran: Duration,
    /// How often KVM's second tables lacked a page.
    pub page_faults: u64,
    /// Part of that time that KVM spent filling them in.
    pub filling: Duration,
    /// How long the guest waited for post-copy pages.
    pub waited: Duration,
    /// Whether the guest is idle at this moment.
    pub idle: bool,
}

/// How the guest returned to its full speed, by the destination's clock.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Settled {
    /// When it did.
    pub brownout: Brownout,
    /// How often KVM's second tables lacked a page until then.
    pub page_faults: u64,
    /// What the guest lost to those faults and to waits for post-copy pages, in ns.
    pub lost_ns: u64,
}

/// When the guest was back at full speed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Brownout {
    /// This long after its first instruction, in ns.
    Over(u64),
    /// Not within that time, in ns.
    Lasts(u64),
    /// The destination cannot tell.
    Unknown,
}

impl Settled {
    /// The value of a destination that cannot tell.
    pub const UNKNOWN: Self = Self { brownout: Brownout::Unknown, page_faults: 0, lost_ns: 0 };
}

/// Watches a guest from its first instruction on.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    /// The last window's end.
    last: Sample,
    /// Time of the last sample.
    looked: Duration,
    invariant: u32,
    /// The end of the last slow window, and what was lost until then.
    slow: (Duration, u64, Duration),
    lost: Duration,
}

impl Watch {
    /// When the next sample is due, since the first instruction.
    #[must_use]
    pub fn due(&self) -> Duration {
        self.looked + WINDOW
    }

    /// Takes a sample. Returns the result once it has seen enough.
    pub fn look(&mut self, now: Sample) -> Option<Settled> {
        self.looked = now.at;
        let ran = now.ran.saturating_sub(self.last.ran);
        let waited = now.waited.saturating_sub(self.last.waited);
        let filling = now.filling.saturating_sub(self.last.filling);
        // However it was measured, filling took no longer than the guest ran.
        let lost = filling.min(ran) + waited;
        let judged = now.idle || (ran + waited) * LEAST >= now.at.saturating_sub(self.last.at);
        if !judged && now.at < TIMEOUT {
            // The guest waits for a CPU: the window continues.
            return None;
        }
        self.lost += lost;
        self.last = now;
        if lost * 10 >= ran + waited && !lost.is_zero() {
            self.invariant = 0;
            self.slow = (now.at, now.page_faults, self.lost);
        } else if judged {
            self.invariant += 1;
        }
        let (until, page_faults, lost) = self.slow;
        let ns = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        if self.invariant >= STEADY {
            let brownout = Brownout::Over(ns(until));
            Some(Settled { brownout, page_faults, lost_ns: ns(lost) })
        } else if now.at >= TIMEOUT {
            let brownout = Brownout::Lasts(ns(now.at));
            Some(Settled { brownout, page_faults: now.page_faults, lost_ns: ns(self.lost) })
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const US: Duration = Duration::from_micros(1);

    /// Feeds windows of a millisecond, each with this many faults, CPU time and waiting. The last
    /// window repeats until there is a result.
    fn settled(windows: &[(u64, Duration, Duration)]) -> (u32, Settled) {
        let mut watch = Watch::default();
        let mut sample = Sample::default();
        let endless = windows.iter().chain(std::iter::repeat(windows.last().unwrap()));
        for (n, (faults, ran, waited)) in (1..).zip(endless) {
            assert_eq!(watch.due(), n * MS - MS + WINDOW);
            sample.at += MS;
            sample.page_faults += faults;
            sample.filling += u32::try_from(*faults).unwrap() * 5 * US;
            sample.ran += *ran;
            sample.waited += *waited;
            sample.idle = (*ran + *waited).is_zero();
            if let Some(settled) = watch.look(sample) {
                return (n, settled);
            }
        }
        unreachable!("it ends")
    }

    const NONE: Duration = Duration::ZERO;

    #[test]
    fn it_ends_with_the_last_slow_window() {
        let (n, settled) =
            settled(&[(100, MS, NONE), (10, MS, NONE), (30, MS, NONE), (2, MS, NONE)]);
        assert_eq!(n, 3 + STEADY);
        assert_eq!(settled.brownout, Brownout::Over(3_000_000));
        assert_eq!((settled.page_faults, settled.lost_ns), (140, 700_000));
    }

    #[test]
    fn a_guest_that_loses_nothing_has_none() {
        let (n, settled) = settled(&[(0, NONE, NONE)]);
        assert_eq!((n, settled.brownout), (STEADY, Brownout::Over(0)));
        assert_eq!((settled.page_faults, settled.lost_ns), (0, 0));
    }

    #[test]
    fn a_guest_that_runs_little_is_slow_by_what_it_runs() {
        // A tenth of the CPU, half of which is lost.
        let (_, settled) = settled(&[(10, 100 * US, NONE), (0, 100 * US, NONE)]);
        assert_eq!(settled.brownout, Brownout::Over(1_000_000));
    }

    #[test]
    fn a_guest_that_waits_for_a_cpu_is_not_judged() {
        let mut watch = Watch::default();
        let at = |ms: u32, ran| Sample { at: ms * MS, ran, ..Sample::default() };
        for ms in 1..20 {
            assert_eq!(watch.look(at(ms, 10 * US)), None, "it has hardly run");
        }
        let slow = Sample { page_faults: 40, filling: 200 * US, ..at(20, MS) };
        assert_eq!(watch.look(slow), None);
        let settled =
            (21..).find_map(|ms| watch.look(Sample { at: ms * MS, ran: (ms - 19) * MS, ..slow }));
        assert_eq!(settled.unwrap().brownout, Brownout::Over(20_000_000));
        let mut starved = Watch::default();
        let settled = (1..).find_map(|ms| starved.look(at(ms, NONE))).unwrap();
        assert_eq!(settled.brownout, Brownout::Lasts(1_000_000_000));
    }

    #[test]
    fn waiting_is_lost() {
        let (_, settled) = settled(&[(0, 500 * US, 500 * US), (0, 950 * US, 50 * US)]);
        assert_eq!((settled.brownout, settled.lost_ns), (Brownout::Over(1_000_000), 500_000));
    }

    #[test]
    fn it_is_not_watched_for_ever() {
        let (_, settled) = settled(&[(100, MS, NONE)]);
        assert_eq!(settled.brownout, Brownout::Lasts(1_000_000_000));
        assert_eq!((settled.page_faults, settled.lost_ns), (100_000, 500_000_000));
    }

    #[test]
    fn filling_cannot_take_longer_than_the_guest_ran() {
        let (_, settled) = settled(&[(1_000_000, 10 * US, NONE), (0, NONE, NONE)]);
        assert_eq!(settled.lost_ns, 10_000);
    }
}
