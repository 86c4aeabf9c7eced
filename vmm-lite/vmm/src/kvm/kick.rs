//! Makes a vCPU thread leave the guest, from another thread.
//!
//! A kick is never lost and sends a signal only if it must: `immediate_exit` ends a `KVM_RUN` that
//! is about to begin, a signal one that has begun. [`Kick::enter`] is the vCPU's side: its order of
//! stores and loads guarantees that one of the two takes effect.

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

/// A handle for kicking one vCPU.
#[derive(Debug)]
pub struct Kick {
    /// `immediate_exit` in the vCPU's `kvm_run` page.
    immediate_exit: AtomicPtr<AtomicU8>,
    /// The thread that is in `KVM_RUN` or about to enter it, or [`OUTSIDE`].
    inside: AtomicI32,
}

impl Kick {
    /// A handle for the vCPU whose `kvm_run` page is `run`.
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

    /// Makes the vCPU leave the guest, or not enter it if a thread is about to. The caller must
    /// have stored its request before.
    pub fn kick(&self) {
        self.immediate_exit().store(1, SeqCst);
        let thread = self.inside.load(SeqCst);
        if thread != OUTSIDE {
            // SAFETY: a thread of this process that was in KVM_RUN a moment ago; the handler does
            // nothing. If the thread has ended since, the call fails, which is harmless: there is
            // nothing to kick then.
            unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, signal()) };
        }
    }

    /// Announces that the calling thread is about to run the guest, and asks `wanted` whether other
    /// work comes first. `false`: it does.
    pub(crate) fn enter(&self, thread: i32, wanted: impl FnOnce() -> bool) -> bool {
        self.inside.store(thread, SeqCst);
        self.immediate_exit().store(0, SeqCst);
        if wanted() {
            self.leave();
            return false;
        }
        true
    }

    /// Announces that the thread has left the guest.
    pub(crate) fn leave(&self) {
        self.inside.store(OUTSIDE, SeqCst);
    }

    /// Whether a thread is in the guest, or entering or leaving it.
    pub(crate) fn is_inside(&self) -> bool {
        self.inside.load(SeqCst) != OUTSIDE
    }

    /// Makes the next `KVM_RUN` complete the last exit and return before it enters the guest.
    pub(super) fn exit_at_once(&self) {
        self.immediate_exit().store(1, SeqCst);
    }
}

pub(super) fn signal() -> libc::c_int {
    libc::SIGRTMIN()
}

/// Installs the handler for the kick's signal, for all threads of the process.
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
