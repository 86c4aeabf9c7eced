//! CPU time of a thread of this process.

use std::{io, mem::MaybeUninit, time::Duration};

/// How much CPU time `thread` has had, in a guest or out of it.
///
/// # Errors
/// What the host says of a thread that there is not.
pub fn of(thread: i32) -> io::Result<Duration> {
    // How Linux numbers these clocks: MAKE_THREAD_CPUCLOCK(thread, CPUCLOCK_SCHED).
    const OF_A_THREAD: i32 = 1 << 2;
    const AS_SCHEDULED: i32 = 2;
    let clock = !thread << 3 | OF_A_THREAD | AS_SCHEDULED;
    let mut time = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: fills the structure or fails.
    if unsafe { libc::clock_gettime(clock, time.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: filled, as the call said.
    let time = unsafe { time.assume_init() };
    Ok(Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::this_thread;

    #[test]
    fn a_thread_that_computes_gets_older_and_another_process_has_none_here() {
        let before = of(this_thread()).unwrap();
        let mut sum = 1_u64;
        while of(this_thread()).unwrap() == before {
            sum = std::hint::black_box(sum.wrapping_mul(3));
        }
        // The first process of the host is not a thread of this one.
        assert!(of(1).is_err());
    }
}
