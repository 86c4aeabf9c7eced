//! Clocks: the TSC multiplied by a factor from the control page or, under QEMU, by one measured at
//! boot. No exits.

use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering, Ordering::Relaxed};

use vmm_lite_interface::control::PvClock;

use crate::samples::tsc;

/// The clock under QEMU, which the guest keeps itself.
static OWN: PvClock = PvClock {
    tsc_base: AtomicU64::new(0),
    mono_base_ns: AtomicU64::new(0),
    mult: AtomicU64::new(1 << 32),
    wall_offset_ns: AtomicU64::new(0),
    tsc_hz: AtomicU64::new(1_000_000_000),
};
/// Changes when the VM was paused, and with that, maybe, the clock.
static NO_RESUMES: AtomicU64 = AtomicU64::new(0);

static CLOCK: AtomicPtr<PvClock> = AtomicPtr::new((&raw const OWN).cast_mut());
static RESUMES: AtomicPtr<AtomicU64> = AtomicPtr::new((&raw const NO_RESUMES).cast_mut());
static LAST: AtomicU64 = AtomicU64::new(0);

/// Nanoseconds since the guest's first boot. Never goes back, also across a move.
#[inline]
#[must_use]
pub fn now_ns() -> u64 {
    let now = read(|_, mono| mono);
    // One vCPU: no other store comes between.
    let now = now.max(LAST.load(Relaxed));
    LAST.store(now, Relaxed);
    now
}

/// What [`now_ns`] returned last.
#[inline]
#[must_use]
pub fn last_ns() -> u64 {
    LAST.load(Relaxed)
}

/// Nanoseconds since 1970.
#[must_use]
pub fn wall_ns() -> u64 {
    read(|clock, mono| mono.wrapping_add(clock.wall_offset_ns.load(Relaxed)))
}

/// Nanoseconds from now until the TSC reads `at`; 0 if that is past.
#[must_use]
pub fn until_tsc(at: u64) -> u64 {
    let clock = clock();
    ticks_to_ns(at.saturating_sub(tsc()), clock.mult.load(Relaxed))
}

fn clock() -> &'static PvClock {
    // SAFETY: `OWN`, or the clock of the control page, which is there for good.
    unsafe { &*CLOCK.load(Relaxed) }
}

/// Calls `f` with the clock and its monotonic time, read consistently: a pause while they are read
/// changes the clock.
#[inline]
fn read<R>(f: impl Fn(&PvClock, u64) -> R) -> R {
    let clock = clock();
    // SAFETY: `NO_RESUMES`, or the control page's, which is there for good.
    let resumes = unsafe { &*RESUMES.load(Relaxed) };
    loop {
        let before = resumes.load(Ordering::Acquire);
        let ticks = tsc().saturating_sub(clock.tsc_base.load(Relaxed));
        let ns = ticks_to_ns(ticks, clock.mult.load(Relaxed));
        let result = f(clock, clock.mono_base_ns.load(Relaxed).wrapping_add(ns));
        core::sync::atomic::compiler_fence(Ordering::SeqCst);
        if resumes.load(Relaxed) == before {
            return result;
        }
    }
}

#[inline]
fn ticks_to_ns(ticks: u64, mult: u64) -> u64 {
    ((u128::from(ticks) * u128::from(mult)) >> 32) as u64
}

/// Reads from the control page from now on.
pub fn use_control_page(clock: &'static PvClock, resumes: &'static AtomicU64) {
    CLOCK.store((&raw const *clock).cast_mut(), Relaxed);
    RESUMES.store((&raw const *resumes).cast_mut(), Relaxed);
}

/// Sets the pace of the TSC: the monotonic clock is 0 when the TSC is `base`.
pub fn set_pace(base: u64, hz: u64) {
    let hz = hz.max(1);
    OWN.tsc_base.store(base, Relaxed);
    OWN.mult.store(((1_000_000_000_u128 << 32) / u128::from(hz)) as u64, Relaxed);
    OWN.tsc_hz.store(hz, Relaxed);
}

/// Sets the wall clock, for now and with that for later.
pub fn set_wall(now_since_1970_ns: u64) {
    OWN.wall_offset_ns.store(now_since_1970_ns.wrapping_sub(now_ns()), Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_become_nanoseconds() {
        // 2.6 GHz.
        let mult = (1_000_000_000_u128 << 32) / 2_600_000_000;
        let day = 2_600_000_000 * 86_400;
        let ns = ticks_to_ns(day, mult as u64);
        assert!(ns.abs_diff(86_400_000_000_000) < 100_000, "{ns}");
        assert_eq!(ticks_to_ns(0, u64::MAX), 0);
        // A year of a fast TSC does not overflow.
        assert!(ticks_to_ns(6_000_000_000 * 86_400 * 365, mult as u64) > ns);
    }

    #[test]
    fn time_never_goes_back() {
        set_pace(tsc(), 1_000_000_000);
        let first = now_ns();
        assert!(now_ns() >= first);
        assert!(last_ns() >= first);
        set_wall(1_700_000_000_000_000_000);
        assert!(wall_ns() >= 1_700_000_000_000_000_000);
    }
}
