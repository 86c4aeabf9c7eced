//! Signals that end a process with a VM.

use std::{io, os::fd::AsRawFd};
use vmm::vm::StopReason;

/// SIGINT, SIGTERM and SIGHUP, as a descriptor to poll.
#[derive(Debug)]
pub struct Signals {
    fd: nix::sys::signalfd::SignalFd,
}

/// Blocks the signals that end a process, in this thread and those it starts, and makes them
/// readable from a descriptor.
///
/// # Errors
/// The host's error.
pub fn catch_signals() -> io::Result<Signals> {
    use nix::sys::{
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
    };
    let mut set = SigSet::empty();
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().for_each(|s| set.add(s));
    set.thread_block()?;
    // A snapshot that grows past the limit of file sizes is an error, not the end of the VM.
    // SAFETY: sets how this process handles the signal; no other code does.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    let fd = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    Ok(Signals { fd })
}

impl Signals {
    /// Readable when a signal has arrived.
    #[must_use]
    pub fn fd(&self) -> i32 {
        self.fd.as_raw_fd()
    }

    /// The next signal that has arrived.
    #[must_use]
    pub fn take(&self) -> Option<StopReason> {
        let info = self.fd.read_signal().ok().flatten()?;
        Some(match info.ssi_signo as i32 {
            libc::SIGINT => StopReason::Interrupt,
            libc::SIGHUP => StopReason::Hangup,
            _ => StopReason::Stop,
        })
    }
}
