//! Getting a vCPU thread out of the guest, from another thread.
//!
//! A kick is never lost and costs a signal only if it must: `immediate_exit` ends a `KVM_RUN` that
//! is about to begin, a signal one that has begun. The vCPU's side is [`Kick::enter`], whose order
//! of stores and loads makes one of the two certain.

use kvm_bindings::kvm_run;
use std::{
    io,
    sync::{
        Once,
        atomic::{AtomicI32, AtomicPtr, AtomicU8, Ordering::SeqCst},
    },
};

/// No thread is in the guest.
const OUTSIDE: i32 = 0;

/// One vCPU's handle for being kicked.
#[derive(Debug)]
pub struct Kick {
    /// `immediate_exit` in the vCPU's `kvm_run` page.
    immediate_exit: AtomicPtr<AtomicU8>,
    /// The thread that is in `KVM_RUN` or about to be, or [`OUTSIDE`].
    inside: AtomicI32,
}

impl Kick {
    /// A handle on the vCPU whose page is `run`.
    ///
    /// # Safety
    /// `run` stays mapped for as long as the handle is used.
    pub(super) unsafe fn new(run: &mut kvm_run) -> Self {
        install_handler();
        let flag = (&raw mut run.immediate_exit).cast::<AtomicU8>();
        Self { immediate_exit: AtomicPtr::new(flag), inside: AtomicI32::new(OUTSIDE) }
    }

    fn immediate_exit(&self) -> &AtomicU8 {
        // SAFETY: set in `new` to a byte that stays mapped; the kernel reads it and does not write
        // it.
        unsafe { &*self.immediate_exit.load(SeqCst) }
    }

    /// Makes the vCPU leave the guest, or not enter it, if a thread is on its way. What it is to do
    /// then must have been stored before.
    pub fn kick(&self) {
        self.immediate_exit().store(1, SeqCst);
        let thread = self.inside.load(SeqCst);
        if thread != OUTSIDE {
            // SAFETY: a thread of this process that was in KVM_RUN a moment ago; the handler does
            // nothing. Should the thread have ended since, the call fails, which is fine: then
            // there is nothing to kick.
            unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, signal()) };
        }
    }

    /// Says that the calling thread is about to run the guest, and asks `wanted` whether something
    /// else is wanted first. `false`: it is.
    pub(crate) fn enter(&self, thread: i32, wanted: impl FnOnce() -> bool) -> bool {
        self.inside.store(thread, SeqCst);
        self.immediate_exit().store(0, SeqCst);
        if wanted() {
            self.leave();
            return false;
        }
        true
    }

    /// Says that the thread is back.
    pub(crate) fn leave(&self) {
        self.inside.store(OUTSIDE, SeqCst);
    }

    /// Whether a thread is in the guest, or on its way into it or out of it.
    pub(crate) fn is_inside(&self) -> bool {
        self.inside.load(SeqCst) != OUTSIDE
    }

    /// Makes the next `KVM_RUN` return before it enters the guest, having completed what the last
    /// exit left open.
    pub(super) fn exit_at_once(&self) {
        self.immediate_exit().store(1, SeqCst);
    }
}

pub(super) fn signal() -> libc::c_int {
    libc::SIGRTMIN()
}

/// Handles the signal of a kick, in all threads of the process.
pub(super) fn install_handler() {
    static ONCE: Once = Once::new();
    extern "C" fn nothing(_: libc::c_int) {}
    ONCE.call_once(|| {
        // SAFETY: a handler that does nothing, without SA_RESTART so that system calls end with
        // EINTR.
        let r = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = nothing as *const () as usize;
            libc::sigaction(signal(), &action, std::ptr::null_mut())
        };
        assert_eq!(r, 0, "cannot handle a real-time signal: {}", io::Error::last_os_error());
    });
}
