//! Requests to a guest: written at once, or staged for the next input point of one that is
//! recorded.

use super::news;
use crate::memory::GuestRam;
use migrate::input_log::Quiesce;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Requests of other threads.
#[derive(Debug, Default)]
pub(in crate::vcpu) struct Staged(Mutex<Requests>);

#[derive(Debug, Default)]
struct Requests {
    /// The guest is recorded.
    recorded: bool,
    quiesce: Option<Quiesce>,
    reclaim: Option<u32>,
}

impl Staged {
    fn lock(&self) -> MutexGuard<'_, Requests> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on requests wait, or no longer do. For a guest that does not run; what waits is
    /// written then.
    pub fn set_recorded(&self, recorded: bool, ram: &GuestRam) {
        let mut requests = self.lock();
        requests.recorded = recorded;
        if !recorded {
            let (quiesce, reclaim) = requests.take();
            write(ram, quiesce, reclaim);
        }
    }

    /// Whether requests wait.
    pub fn is_recorded(&self) -> bool {
        self.lock().recorded
    }

    /// Asks the guest to quiesce.
    pub fn quiesce(&self, ram: &GuestRam, request: Quiesce) {
        let mut requests = self.lock();
        if requests.recorded {
            requests.quiesce = Some(request);
            ram.samples().interrupt();
        } else {
            news::ask_to_quiesce(ram, request);
        }
    }

    /// Asks the guest to return memory.
    pub fn reclaim(&self, ram: &GuestRam, number: u32) {
        let mut requests = self.lock();
        if requests.recorded {
            requests.reclaim = Some(number);
            ram.samples().interrupt();
        } else {
            news::ask_to_reclaim(ram, number);
        }
    }

    /// Writes what waits, at an input point. Returns it.
    pub fn deliver(&self, ram: &GuestRam) -> (Option<Quiesce>, Option<u32>) {
        let (quiesce, reclaim) = self.lock().take();
        write(ram, quiesce, reclaim);
        (quiesce, reclaim)
    }
}

impl Requests {
    fn take(&mut self) -> (Option<Quiesce>, Option<u32>) {
        (self.quiesce.take(), self.reclaim.take())
    }
}

/// Writes requests to the control page.
pub(super) fn write(ram: &GuestRam, quiesce: Option<Quiesce>, reclaim: Option<u32>) {
    if let Some(quiesce) = quiesce {
        news::ask_to_quiesce(ram, quiesce);
    }
    if let Some(number) = reclaim {
        news::ask_to_reclaim(ram, number);
    }
}
