//! Makes the calling thread leave the guest where no other thread may interrupt it.

use super::kick;
use crate::host::this_thread;
use std::{mem, ptr, time::Duration};

/// Interrupts the calling thread repeatedly until it is dropped: a single signal could arrive right
/// before the thread enters the guest.
#[derive(Debug)]
pub struct Alarm(Option<libc::timer_t>);

// A timer belongs to the process; the thread that it interrupts is fixed.
impl Alarm {
    /// Interrupts after every `interval` (less than a second) of the thread's CPU time: on a busy
    /// host the thread may wait for a CPU longer than the work that is to be limited takes. Where
    /// the host refuses a timer it never interrupts.
    #[must_use]
    pub fn every(interval: Duration) -> Self {
        kick::install_handler();
        // SAFETY: a structure of numbers, whose all-zero value is valid.
        let mut event: libc::sigevent = unsafe { mem::zeroed() };
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = kick::signal();
        event.sigev_notify_thread_id = this_thread();
        let mut timer: libc::timer_t = ptr::null_mut();
        let time = libc::timespec { tv_sec: 0, tv_nsec: interval.subsec_nanos().into() };
        let spec = libc::itimerspec { it_interval: time, it_value: time };
        // SAFETY: valid pointers to what the calls read and fill.
        let made = unsafe {
            libc::timer_create(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut event, &raw mut timer) == 0
                && libc::timer_settime(timer, 0, &raw const spec, ptr::null_mut()) == 0
        };
        Self(made.then_some(timer))
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if let Some(timer) = self.0 {
            // SAFETY: `every` made the timer, and it has no other owner.
            unsafe { libc::timer_delete(timer) };
        }
    }
}
