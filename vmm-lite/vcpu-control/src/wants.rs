//! What other threads want of the vCPUs, and how the vCPU threads learn of it.
//!
//! A thread that wants the vCPUs stopped counts itself first and then wakes and kicks them. A vCPU
//! thread announces that it is about to wait, or to enter the guest, before it reads the counts for
//! the last time, so that one of the two always sees the other. A thread withdraws only its own
//! count: a resume in between cannot lose a pause.

use crate::{
    Control, Platform, Wake,
    sync::{AtomicBool, AtomicU32, SeqCst},
};
use std::fmt;

/// Requests to the vCPUs of a VM.
#[derive(Debug)]
pub(crate) struct Wants {
    /// Numbers of threads that want the vCPUs stopped, and that want the guest to quiesce.
    pauses: AtomicU32,
    quiesces: AtomicU32,
    /// A vCPU has stopped: the others stop too.
    pub barrier: AtomicBool,
    /// The VM is to end: it is not run again.
    pub ending: AtomicBool,
    /// The VM is about to be stopped and captured.
    stop_near: AtomicBool,
    /// The guest has to run for a moment, as it must see something that was written.
    look: AtomicBool,
}

impl Wants {
    pub fn new() -> Self {
        Self {
            pauses: AtomicU32::new(0),
            quiesces: AtomicU32::new(0),
            barrier: AtomicBool::new(false),
            ending: AtomicBool::new(false),
            stop_near: AtomicBool::new(false),
            look: AtomicBool::new(false),
        }
    }
}

/// A request that counts until this is dropped.
pub struct Want<'c>(&'c AtomicU32);

impl fmt::Debug for Want<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Want").finish_non_exhaustive()
    }
}

impl Drop for Want<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

impl<P: Platform> Control<P> {
    /// Requests that the vCPUs stop as soon as possible.
    pub fn want_pause(&self) -> Want<'_> {
        self.wants.pauses.fetch_add(1, SeqCst);
        self.stir();
        Want(&self.wants.pauses)
    }

    /// Requests that the vCPUs stop when the guest reports that it is quiescent.
    pub fn want_quiesce(&self) -> Want<'_> {
        self.wants.quiesces.fetch_add(1, SeqCst);
        self.nudge();
        Want(&self.wants.quiesces)
    }

    /// Makes the vCPU threads check the requests, wherever they are.
    pub(crate) fn stir(&self) {
        self.nudge();
        self.members.iter().for_each(|member| member.kick.kick());
    }

    /// Ends the waits of vCPU threads, so that they check for work.
    pub fn nudge(&self) {
        for member in self.members.iter().filter(|member| member.waiting.load(SeqCst)) {
            member.wake.wake();
        }
    }

    /// Whether the vCPUs are to stop as soon as possible.
    pub fn pause_wanted(&self) -> bool {
        let wants = &self.wants;
        wants.pauses.load(SeqCst) > 0 || self.end_wanted() || wants.barrier.load(SeqCst)
    }

    /// Whether the vCPUs are to stop when the guest is quiescent.
    pub fn quiesce_wanted(&self) -> bool {
        self.wants.quiesces.load(SeqCst) > 0
    }

    /// Whether the VM is to end.
    pub fn end_wanted(&self) -> bool {
        self.wants.ending.load(SeqCst)
    }

    /// Announces that the VM is about to be stopped for a capture, or is not after all.
    pub fn set_stop_near(&self, near: bool) {
        self.wants.stop_near.store(near, SeqCst);
        if near {
            self.nudge();
        }
    }

    /// Whether it is.
    pub fn stop_is_near(&self) -> bool {
        self.wants.stop_near.load(SeqCst)
    }

    /// Has the guest run for a moment, even if it waits.
    pub fn want_look(&self) {
        self.wants.look.store(true, SeqCst);
        self.nudge();
    }

    /// Whether the guest has to run for a moment. Reading it clears it.
    pub fn look_wanted(&self) -> bool {
        self.wants.look.swap(false, SeqCst)
    }
}
