//! Gets the calling thread out of the guest when nobody else may do it.

use super::kick;
use crate::host::this_thread;
use std::{mem, ptr, time::Duration};

/// Interrupts the calling thread again and again until it is dropped: one signal could come right
/// before the guest is entered.
#[derive(Debug)]
pub struct Alarm(Option<libc::timer_t>);

// A timer belongs to the process; which thread it interrupts is settled.
impl Alarm {
    /// Interrupts every `interval` of CPU time of the thread's, which is less than a second: on a
    /// busy host it may wait for its CPU for longer than what is to be cut short takes. Where there
    /// can be no timer it never does.
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
            // SAFETY: made by `every`, and nobody else's.
            unsafe { libc::timer_delete(timer) };
        }
    }
}
