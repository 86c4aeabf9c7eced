//! What a vCPU thread owes, for the [watchdog](crate::host::watchdog): derived from its control, so
//! the thread itself does nothing for that.

use super::Vcpus;
use crate::host::{
    confine::Thread,
    watchdog::{Look, Watched},
};
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

impl Watched for Vcpus {
    fn look(&self) -> Option<Look> {
        // While memory is missing the thread may have to wait for it for any time. The thread that
        // receives the memory is watched, or has its own deadlines.
        if !self.control.runs() || self.ram.complete().is_none() {
            return None;
        }
        let exits = &self.exits;
        let all = [&exits.doorbell, &exits.mmio, &exits.kicked, &exits.slept, &self.resumes];
        // All of these only grow.
        let progress = all.into_iter().fold(0_u64, |sum, n| sum.wrapping_add(n.load(Relaxed)));
        self.threads.iter().enumerate().find_map(|(member, thread)| {
            let doing = self.owes(member)?;
            let tid = thread.id.load(SeqCst);
            Some(Look { thread: Thread::Vcpu.name(), tid, doing, progress })
        })
    }
}

impl Vcpus {
    /// What the thread of a running vCPU owes.
    fn owes(&self, member: usize) -> Option<&'static str> {
        let control = &self.control;
        let (inside, waiting) = (control.kick(member).is_inside(), control.is_waiting(member));
        Some(match (control.pause_wanted(), inside, waiting) {
            (true, true, _) => "was asked to stop, and has not left the guest",
            (true, false, true) => "was asked to stop, and still waits for the guest's next event",
            (true, false, false) => "was asked to stop, and is still serving the guest",
            // A guest may compute for any time.
            (false, true, _) | (false, false, true) => return None,
            (false, false, false) => "serves the guest, and does not come to an end of it",
        })
    }
}
