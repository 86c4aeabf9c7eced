//! Processes that work for a VM's process: they have what that one gives up, and no guest.

use super::confine::{self, Mode, files};
use nix::{
    sys::{
        socket::{AddressFamily, SockFlag, SockType, socketpair},
        wait::{WaitStatus, waitpid},
    },
    unistd::{ForkResult, Pid, dup2_stderr, dup2_stdin, dup2_stdout, fork, setsid},
};
use std::{
    ffi::CStr,
    fs::{self, OpenOptions},
    io,
    os::fd::{OwnedFd, RawFd},
    panic::{AssertUnwindSafe, catch_unwind},
};

/// A pair of sockets with message boundaries.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SockFlag::SOCK_CLOEXEC;
    Ok(socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?)
}

/// Starts a detached process, which runs `run` with its ends of two sockets, and ends. Returns the
/// other ends. Call it while there is only one thread.
///
/// # Errors
/// The host's.
pub fn beside(run: impl FnOnce(&OwnedFd, &OwnedFd)) -> io::Result<(OwnedFd, OwnedFd)> {
    if fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other("there are other threads already"));
    }
    let (socket, theirs) = pair()?;
    let (leash, held) = pair()?;
    // SAFETY: there is one thread, as was just checked, so no lock is held in the copy.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => {
            drop((theirs, held));
            wait_for(child)?;
            Ok((socket, leash))
        }
        ForkResult::Child => {
            // The grandchild is detached: this process need not wait for it. Neither child returns
            // from here.
            let become_another = || {
                drop((socket, leash));
                // SAFETY: as above.
                match unsafe { fork() } {
                    Ok(ForkResult::Parent { .. }) => 0,
                    Ok(ForkResult::Child) => {
                        run(&theirs, &held);
                        0
                    }
                    Err(e) => e as i32,
                }
            };
            let code = catch_unwind(AssertUnwindSafe(become_another)).unwrap_or(libc::EINVAL);
            // SAFETY: ends the process, without running or flushing anything of its parent's.
            unsafe { libc::_exit(code) }
        }
    }
}

/// Waits for the intermediate process.
fn wait_for(child: Pid) -> io::Result<()> {
    loop {
        return match waitpid(child, None) {
            Ok(WaitStatus::Exited(_, 0)) => Ok(()),
            Ok(WaitStatus::Exited(_, code)) => Err(io::Error::from_raw_os_error(code)),
            Ok(_) => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(nix::Error::EINTR) => continue,
            Err(e) => Err(e.into()),
        };
    }
}

/// In such a process: releases what is the parent's, but for the descriptors to `keep`.
///
/// # Errors
/// The host's; the process must end then.
pub fn leave_behind(name: &CStr, mode: Mode, keep: &[RawFd]) -> Result<(), confine::Error> {
    let go = || -> io::Result<()> {
        // No other process of this user can read its memory, and it leaves no core dump.
        nix::sys::prctl::set_dumpable(false)?;
        nix::sys::prctl::set_name(name)?;
        // Ctrl-C and the terminal's hangup are for the parent.
        setsid()?;
        let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
        dup2_stdin(&null)?;
        dup2_stdout(&null)?;
        // A reader that waits for the end of the parent's output need not wait for this process.
        if mode != Mode::Trap {
            dup2_stderr(&null)?;
        }
        Ok(())
    };
    go().map_err(|source| confine::Error::Call { doing: "leave a process behind", source })?;
    files::close_inherited(keep)
}
