//! Requests to the guest, which reads them in its control page.

use super::Phase;
use crate::{devices::clock, vm::shared::Shared};
use std::{
    sync::atomic::Ordering::SeqCst,
    time::{Duration, Instant},
};
use vmm_lite_interface::layout::{CONTROL_PAGE, PAGE_SIZE};

impl Shared {
    /// Writes a new quiesce request to the control page.
    pub(in crate::vm) fn request_quiesce(&self, timeout: Duration) {
        let control = self.ram.control_page();
        let answered = control.quiesce_answer.load(SeqCst);
        // A number that differs from every earlier request and from the last answer.
        let mut number = self.quiesce_number.load(SeqCst).wrapping_add(1);
        if number == answered {
            number = number.wrapping_add(1);
        }
        self.quiesce_number.store(number, SeqCst);
        let hz = control.clock.tsc_hz.load(SeqCst);
        let ticks = u128::from(hz) * timeout.as_nanos() / 1_000_000_000;
        let deadline = clock::tsc().saturating_add(u64::try_from(ticks).unwrap_or(u64::MAX));
        control.quiesce_deadline_tsc.store(deadline, SeqCst);
        control.quiesce_request.store(number, SeqCst);
        self.ram.mark(CONTROL_PAGE, PAGE_SIZE as usize);
    }

    /// Asks the guest to return memory that it does not use.
    pub(in crate::vm) fn request_reclaim(&self) {
        let control = self.ram.control_page();
        let number = control.reclaim_answer.load(SeqCst).wrapping_add(1);
        control.reclaim_request.store(number, SeqCst);
        self.ram.mark(CONTROL_PAGE, PAGE_SIZE as usize);
        self.look.store(true, SeqCst);
        self.nudge();
    }

    /// Waits until the guest has answered [`request_reclaim`](Self::request_reclaim), does not run,
    /// or `deadline`. If it has answered, returns the number of the quiesce request before.
    pub(in crate::vm) fn wait_reclaimed(&self, deadline: Instant) -> Option<u32> {
        let page = self.ram.control_page();
        let number = self.quiesce_number();
        let answered = || page.reclaim_answer.load(SeqCst) == page.reclaim_request.load(SeqCst);
        let mut control = self.lock_control();
        while matches!(control.phase, Phase::Running) && !answered() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            control = self.wait_changed(control, Some(left));
        }
        answered().then_some(number)
    }

    /// Number of the last quiesce request.
    pub(in crate::vm) fn quiesce_number(&self) -> u32 {
        self.quiesce_number.load(SeqCst)
    }

    pub(in crate::vm) fn set_quiesce_number(&self, number: u32) {
        self.quiesce_number.store(number, SeqCst);
    }

    /// Notifies waiting threads that the guest has answered a request.
    pub(in crate::vm) fn answered(&self) {
        // Taking the lock once ensures that the waiting thread either sleeps or has yet to check.
        drop(self.lock_control());
        self.changed.notify_all();
    }
}
