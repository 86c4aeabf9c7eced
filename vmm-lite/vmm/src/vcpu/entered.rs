//! When the guest was first entered after a resume (rule R7).

use super::Vcpus;
use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    time::{Duration, Instant},
};
use vcpu_control::Platform;

/// The time of the first entry.
#[derive(Debug)]
pub(crate) struct Entered {
    /// When the VM was made.
    pub made: Instant,
    /// Nanoseconds after `made` at which the guest was last entered after a resume, plus one; 0
    /// before that.
    at: AtomicU64,
    /// A thread waits for it.
    awaited: AtomicBool,
}

impl Default for Entered {
    fn default() -> Self {
        Self { made: Instant::now(), at: AtomicU64::new(0), awaited: AtomicBool::new(false) }
    }
}

impl Entered {
    /// Forgets the entry: the guest is about to be resumed.
    pub fn forget(&self) {
        self.at.store(0, SeqCst);
    }

    fn at(&self) -> Option<Instant> {
        match self.at.load(SeqCst) {
            0 => None,
            n => Some(self.made + Duration::from_nanos(n - 1)),
        }
    }
}

impl Vcpus {
    /// Notes the first entry after a resume. A thread that waits for it is woken right here, which
    /// costs the guest a microsecond or two; a later one finds the note.
    pub(super) fn note_entry(&self) {
        let entered = &self.entered;
        let ns = entered.made.elapsed().as_nanos() as u64;
        entered.at.store(ns + 1, SeqCst);
        if entered.awaited.swap(false, SeqCst) {
            self.control.changed();
        }
    }

    /// Waits for the first entry, at most `timeout`, and while the VM runs.
    pub fn wait_entered(&self, timeout: Duration) -> Option<Instant> {
        let deadline = Instant::now() + timeout;
        let entered = &self.entered;
        super::control::Surroundings::poll_for_a_moment(|| entered.at().is_some());
        let found = self.control.wait_until(Some(deadline), |phase, _| {
            entered.awaited.store(true, SeqCst);
            let at = entered.at();
            if at.is_some() || !phase.is_running() { Some(at) } else { None }
        });
        found.flatten()
    }
}
