//! Requests of other threads to the vCPU thread, and how it learns of them.

use crate::vm::shared::Shared;
use std::{
    os::fd::AsRawFd,
    sync::atomic::{AtomicU32, Ordering::SeqCst},
};

/// A request that counts until this is dropped.
pub(in crate::vm) struct Wish<'s>(&'s AtomicU32);

impl Drop for Wish<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

impl Shared {
    /// Requests that the vCPU stops as soon as possible.
    pub(in crate::vm) fn want_pause(&self) -> Wish<'_> {
        self.pauses.fetch_add(1, SeqCst);
        self.stir();
        Wish(&self.pauses)
    }

    /// Requests that the vCPU stops when the guest reports that it is quiescent.
    pub(in crate::vm) fn want_quiesce(&self) -> Wish<'_> {
        self.quiesces.fetch_add(1, SeqCst);
        self.nudge();
        Wish(&self.quiesces)
    }

    /// Makes the vCPU thread check the requests, wherever it is.
    pub(super) fn stir(&self) {
        self.nudge();
        self.kick.kick();
    }

    /// Ends a wait of the vCPU thread, so that it checks for work.
    pub(in crate::vm) fn nudge(&self) {
        if self.waiting.load(SeqCst) {
            // The counter cannot overflow in practice, and a full one wakes the thread too.
            let _ = self.wake.write(1);
        }
    }

    pub(in crate::vm) fn pause_wanted(&self) -> bool {
        self.pauses.load(SeqCst) > 0 || self.stopping.load(SeqCst)
    }

    pub(in crate::vm) fn quiesce_wanted(&self) -> bool {
        self.quiesces.load(SeqCst) > 0
    }

    pub(in crate::vm) fn stop_is_near(&self) -> bool {
        self.stop_near.load(SeqCst)
    }

    /// Whether the guest has to run for a moment. Reading it clears it.
    pub(in crate::vm) fn look_wanted(&self) -> bool {
        self.look.swap(false, SeqCst)
    }

    /// Announces that the vCPU thread is about to wait (or no longer does).
    pub(in crate::vm) fn set_waiting(&self, waiting: bool) {
        self.waiting.store(waiting, SeqCst);
    }

    /// Whether it does.
    pub(in crate::vm) fn is_waiting(&self) -> bool {
        self.waiting.load(SeqCst)
    }

    /// The descriptor that [`nudge`](Self::nudge) makes readable.
    pub(in crate::vm) fn wake_fd(&self) -> i32 {
        self.wake.as_raw_fd()
    }

    /// Makes it unreadable again.
    pub(in crate::vm) fn clear_wake(&self) {
        let _ = self.wake.read();
    }
}
