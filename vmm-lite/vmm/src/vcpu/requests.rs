//! Requests to the guest, which reads them in its control page, and its answers.

use super::{InvariantState, Vcpus, inputs::Staged};
use crate::{devices::clock, memory::GuestRam};
use migrate::input_log::Quiesce;
use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

/// What was requested and answered last.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    /// Number of the last quiesce request.
    quiesce: AtomicU32,
    /// Number of the last request to return memory.
    reclaim: AtomicU32,
    /// Those that a recorded guest has not been given yet.
    pub(super) staged: Staged,
    /// Number of the request that the guest has answered last. The vCPU thread notes it after
    /// [`invariant`](Self::invariant), later than the guest's own note in its control page.
    reclaimed: AtomicU32,
    /// The invariant state that the vCPU thread last found.
    invariant: Mutex<Option<InvariantState>>,
}

impl Requests {
    /// Number of the last quiesce request.
    pub fn quiesce_number(&self) -> u32 {
        self.quiesce.load(SeqCst)
    }

    pub fn set_quiesce_number(&self, number: u32) {
        self.quiesce.store(number, SeqCst);
    }

    /// From now on requests wait for an input point, or no longer do. For a guest that does not
    /// run.
    pub fn set_recorded(&self, recorded: bool, ram: &GuestRam) {
        self.staged.set_recorded(recorded, ram);
    }

    /// Whether requests wait for an input point.
    pub fn is_recorded(&self) -> bool {
        self.staged.is_recorded()
    }

    /// The invariant state as of the last answer to a reclaim request.
    pub fn invariant(&self) -> Option<InvariantState> {
        self.invariant.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The guest has answered the reclaim request of this number.
    pub(super) fn set_reclaimed(&self, number: u32, invariant: Option<InvariantState>) {
        *self.invariant.lock().unwrap_or_else(PoisonError::into_inner) = invariant;
        self.reclaimed.store(number, SeqCst);
    }
}

impl Vcpus {
    /// Writes a new quiesce request to the control page.
    pub fn request_quiesce(&self, timeout: Duration) {
        let control = self.ram.control_page();
        let answered = control.quiesce_answer.load(SeqCst);
        // A number that differs from every earlier request and from the last answer.
        let mut number = self.requests.quiesce_number().wrapping_add(1);
        if number == answered {
            number = number.wrapping_add(1);
        }
        self.requests.set_quiesce_number(number);
        let hz = control.clock.tsc_hz.load(SeqCst);
        let ticks = u128::from(hz) * timeout.as_nanos() / 1_000_000_000;
        let deadline_tsc = clock::tsc().saturating_add(u64::try_from(ticks).unwrap_or(u64::MAX));
        self.requests.staged.quiesce(&self.ram, Quiesce { number, deadline_tsc });
    }

    /// Asks the guest to return memory that it does not use.
    pub fn request_reclaim(&self) {
        let control = self.ram.control_page();
        let number = control.reclaim_answer.load(SeqCst).wrapping_add(1);
        self.requests.reclaim.store(number, SeqCst);
        self.requests.staged.reclaim(&self.ram, number);
        self.control.want_look();
    }

    /// Waits until the guest has answered [`request_reclaim`](Self::request_reclaim), does not run,
    /// or `deadline`. If it has answered, returns the number of the quiesce request before.
    pub fn wait_reclaimed(&self, deadline: Instant) -> Option<u32> {
        let number = self.requests.quiesce_number();
        let requested = self.requests.reclaim.load(SeqCst);
        let answered = || self.requests.reclaimed.load(SeqCst) == requested;
        self.control.wait_until(Some(deadline), |phase, _| {
            (!phase.is_running() || answered()).then_some(())
        });
        answered().then_some(number)
    }
}
