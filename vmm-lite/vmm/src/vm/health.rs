//! What the vCPU thread owes, for the [watchdog](crate::host::watchdog): derived from its steering
//! state, so the thread itself does nothing for that.

use super::shared::Shared;
use crate::{
    host::confine::Thread,
    host::watchdog::{self, Look, Watched},
};
use std::sync::{
    Arc, Weak,
    atomic::Ordering::{Relaxed, SeqCst},
};

/// Has the watchdog watch a VM's vCPU thread.
pub(super) fn watch(shared: &Arc<Shared>) {
    let weak: Weak<Shared> = Arc::downgrade(shared);
    watchdog::watch(weak);
}

impl Watched for Shared {
    fn look(&self) -> Option<Look> {
        // While memory is missing the thread may have to wait for it for any time. The thread that
        // receives the memory is watched, or has its own deadlines.
        if !self.running.load(SeqCst) || self.ram.complete().is_none() {
            return None;
        }
        let doing = match (self.pause_wanted(), self.kick.is_inside(), self.is_waiting()) {
            (true, true, _) => "was asked to stop, and has not left the guest",
            (true, false, true) => "was asked to stop, and still waits for the guest's next event",
            (true, false, false) => "was asked to stop, and is still serving the guest",
            // A guest may compute for any time.
            (false, true, _) | (false, false, true) => return None,
            (false, false, false) => "serves the guest, and does not come to an end of it",
        };
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Relaxed);
        let exits = &self.exits;
        let all = [&exits.doorbell, &exits.mmio, &exits.kicked, &exits.slept, &self.resumes];
        // All of these only grow.
        let progress = all.into_iter().fold(0_u64, |sum, n| sum.wrapping_add(count(n)));
        let tid = self.thread.load(SeqCst);
        Some(Look { thread: Thread::Vcpu.name(), tid, doing, progress })
    }
}
