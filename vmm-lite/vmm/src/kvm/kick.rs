//! Gets a thread out of `KVM_RUN`: `immediate_exit` ends a call that is about to begin, a signal
//! one that has begun. The protocol that makes one of the two take effect is
//! [`vcpu_control::Kick`].

use kvm_bindings::kvm_run;
use std::{
    io,
    sync::{
        Once,
        atomic::{AtomicPtr, AtomicU8, Ordering::SeqCst},
    },
};
use vcpu_control::Guest;

/// A handle for kicking one vCPU.
pub type Kick = vcpu_control::Kick<ImmediateExit>;

/// `immediate_exit` in a vCPU's `kvm_run` page.
#[derive(Debug)]
pub struct ImmediateExit(AtomicPtr<AtomicU8>);

impl ImmediateExit {
    /// The flag of the vCPU whose `kvm_run` page is `run`.
    ///
    /// # Safety
    /// `run` stays mapped for as long as this is used.
    pub(super) unsafe fn new(run: &mut kvm_run) -> Self {
        install_handler();
        Self(AtomicPtr::new((&raw mut run.immediate_exit).cast::<AtomicU8>()))
    }
}

impl Guest for ImmediateExit {
    fn exit_at_once(&self, exit: bool) {
        // SAFETY: set in `new` to a byte that stays mapped; the kernel reads it and does not write
        // it.
        unsafe { &*self.0.load(SeqCst) }.store(exit.into(), SeqCst);
    }

    fn interrupt(&self, thread: i32) {
        // SAFETY: a thread of this process that was in KVM_RUN a moment ago; the handler does
        // nothing. If the thread has ended since, the call fails, which is harmless: there is
        // nothing to kick then.
        unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, signal()) };
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
