//! Clocks and sleep.

use hermit_abi::{CLOCK_MONOTONIC, CLOCK_REALTIME, clockid_t, errno, timespec};

use crate::{events, time};

const NS_PER_S: u64 = 1_000_000_000;

/// Nanoseconds, saturating; `None` for what is no time span.
pub(super) fn nanoseconds(time: &timespec) -> Option<u64> {
    let ns = u64::try_from(time.tv_nsec).ok().filter(|ns| *ns < NS_PER_S)?;
    Some(u64::try_from(time.tv_sec).ok()?.saturating_mul(NS_PER_S).saturating_add(ns))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn sys_clock_gettime(clock: clockid_t, to: *mut timespec) -> i32 {
    if to.is_null() {
        return -errno::EINVAL;
    }
    let now = time::now_ns();
    // A program may wait by reading the clock again and again.
    events::checkpoint_at(now);
    let ns = match clock {
        CLOCK_REALTIME => time::wall_ns(),
        CLOCK_MONOTONIC => now.max(time::last_ns()),
        _ => return -errno::EINVAL,
    };
    let value = timespec { tv_sec: (ns / NS_PER_S).cast_signed(), tv_nsec: (ns % NS_PER_S) as i32 };
    // SAFETY: where the caller wants it.
    unsafe { to.write(value) };
    0
}

#[unsafe(no_mangle)]
extern "C" fn sys_usleep(microseconds: u64) {
    events::sleep(microseconds.saturating_mul(1000));
}

#[unsafe(no_mangle)]
unsafe extern "C" fn sys_nanosleep(span: *const timespec) -> i32 {
    // SAFETY: null, or the caller's.
    match unsafe { span.as_ref() }.and_then(nanoseconds) {
        Some(ns) => {
            events::sleep(ns);
            0
        }
        None => -errno::EINVAL,
    }
}
