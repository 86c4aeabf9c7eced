//! CPU time of a thread of this process.

use std::{io, mem::MaybeUninit, time::Duration};

/// The CPU time that `thread` has used, in the guest and outside of it.
///
/// # Errors
/// The host's error if there is no such thread.
pub fn of(thread: i32) -> io::Result<Duration> {
    // Linux numbers these clocks like this: MAKE_THREAD_CPUCLOCK(thread, CPUCLOCK_SCHED).
    const OF_A_THREAD: i32 = 1 << 2;
    const AS_SCHEDULED: i32 = 2;
    let clock = !thread << 3 | OF_A_THREAD | AS_SCHEDULED;
    let mut time = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: the call fills the structure or fails.
    if unsafe { libc::clock_gettime(clock, time.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so the structure is filled.
    let time = unsafe { time.assume_init() };
    Ok(Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::this_thread;

    #[test]
    fn cpu_time_grows_as_a_thread_computes_and_is_refused_for_other_processes() {
        let before = of(this_thread()).unwrap();
        let mut sum = 1_u64;
        while of(this_thread()).unwrap() == before {
            sum = std::hint::black_box(sum.wrapping_mul(3));
        }
        // The first process of the host is not a thread of this one.
        assert!(of(1).is_err());
    }
}
