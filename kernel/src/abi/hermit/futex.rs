//! Futexes.

use hermit_abi::{FUTEX_RELATIVE_TIMEOUT, errno, timespec};

use super::time::nanoseconds;
use crate::events;
use crate::{sched, sched::Wake, time};

#[unsafe(no_mangle)]
unsafe extern "C" fn sys_futex_wait(
    address: *mut u32,
    expected: u32,
    timeout: *const timespec,
    flags: u32,
) -> i32 {
    if address.is_null() || flags & !FUTEX_RELATIVE_TIMEOUT != 0 {
        return -errno::EINVAL;
    }
    // Other threads may run here; after the comparison none does until this one waits.
    events::checkpoint();
    // SAFETY: null, or the caller's.
    let deadline = match unsafe { timeout.as_ref() }.map(nanoseconds) {
        None => None,
        Some(None) => return -errno::EINVAL,
        Some(Some(ns)) if flags & FUTEX_RELATIVE_TIMEOUT != 0 => {
            Some(time::now_ns().saturating_add(ns))
        }
        absolute => absolute.flatten(),
    };
    // SAFETY: the caller's futex. It is atomic; there is one vCPU.
    if unsafe { address.read_volatile() } != expected {
        return -errno::EAGAIN;
    }
    match sched::futex_wait(address.addr(), deadline) {
        Wake::Woken => 0,
        Wake::TimedOut => -errno::ETIMEDOUT,
    }
}

#[unsafe(no_mangle)]
extern "C" fn sys_futex_wake(address: *mut u32, count: i32) -> i32 {
    let Ok(count) = usize::try_from(count) else { return -errno::EINVAL };
    if address.is_null() {
        return -errno::EINVAL;
    }
    let count = if count == i32::MAX as usize { usize::MAX } else { count };
    i32::try_from(sched::futex_wake(address.addr(), count)).unwrap_or(i32::MAX)
}
