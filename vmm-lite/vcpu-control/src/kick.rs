//! Makes a vCPU thread leave the guest, from another thread.
//!
//! A kick is never lost and interrupts only if it must: the flag ends an entry that is about to
//! begin, an interruption one that has begun. [`Kick::enter`] is the vCPU thread's side: its order
//! of stores and loads guarantees that one of the two takes effect.

use crate::sync::{AtomicI32, SeqCst};
use std::fmt;

/// No thread is in the guest.
const OUTSIDE: i32 = 0;

/// What the host offers to get a thread out of the guest.
pub trait Guest {
    /// Whether an entry into the guest, from now on, returns at once (`immediate_exit` of
    /// `KVM_RUN`).
    fn exit_at_once(&self, exit: bool);

    /// Makes the thread `thread` leave the guest, or not enter it, if it is at `KVM_RUN`. It may
    /// have left, or ended, already.
    fn interrupt(&self, thread: i32);
}

/// A handle for kicking one vCPU.
pub struct Kick<G> {
    guest: G,
    /// The thread that is in the guest or about to enter it, or [`OUTSIDE`].
    inside: AtomicI32,
}

impl<G> fmt::Debug for Kick<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kick").finish_non_exhaustive()
    }
}

impl<G: Guest> Kick<G> {
    /// A handle for the vCPU that `guest` gets out.
    pub fn new(guest: G) -> Self {
        Self { guest, inside: AtomicI32::new(OUTSIDE) }
    }

    /// What it was made of.
    pub fn guest(&self) -> &G {
        &self.guest
    }

    /// Makes the vCPU leave the guest, or not enter it if a thread is about to. The caller must
    /// have stored its request before.
    pub fn kick(&self) {
        self.guest.exit_at_once(true);
        let thread = self.inside.load(SeqCst);
        if thread != OUTSIDE {
            self.guest.interrupt(thread);
        }
    }

    /// Announces that the calling thread, `thread`, is about to run the guest, and asks `wanted`
    /// whether other work comes first. `false`: it does.
    pub fn enter(&self, thread: i32, wanted: impl FnOnce() -> bool) -> bool {
        self.inside.store(thread, SeqCst);
        self.guest.exit_at_once(false);
        if wanted() {
            self.leave();
            return false;
        }
        true
    }

    /// Announces that the thread has left the guest.
    pub fn leave(&self) {
        self.inside.store(OUTSIDE, SeqCst);
    }

    /// Whether a thread is in the guest, or entering or leaving it.
    pub fn is_inside(&self) -> bool {
        self.inside.load(SeqCst) != OUTSIDE
    }
}
