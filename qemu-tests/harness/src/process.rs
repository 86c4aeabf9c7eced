//! Starts QEMU so that it ends with the test, with the sockets that it uses.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

/// Runs `command` with the descriptors `inherited` under the same numbers. It is killed when the
/// thread that called this ends, however that happens.
pub fn spawn(command: &mut Command, inherited: &[OwnedFd]) -> io::Result<Child> {
    let fds: Vec<RawFd> = inherited.iter().map(AsRawFd::as_raw_fd).collect();
    let parent = std::process::id();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let prepare = move || {
        // SAFETY: the system call takes no pointers.
        check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) })?;
        // The parent may have died before the call above took effect.
        if std::os::unix::process::parent_id() != parent {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        for &fd in &fds {
            // SAFETY: clears close-on-exec in the child's copy of a descriptor that `inherited`
            // keeps open.
            check(unsafe { libc::fcntl(fd, libc::F_SETFD, 0) })?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure only makes system calls; it neither allocates nor
    // takes locks.
    unsafe { command.pre_exec(prepare) }.spawn()
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
