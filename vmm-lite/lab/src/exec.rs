//! The time at which a program was started, to the microsecond, and what it inherits. Forking
//! counts as its starter's time, not its own.

use std::{
    fs::File,
    io::{self, Read},
    os::{
        fd::{AsRawFd, OwnedFd, RawFd},
        unix::process::CommandExt,
    },
    process::Command,
    time::Duration,
};

use crate::error::{Doing, Result};

/// The monotonic clock, which all processes of a host share.
#[must_use]
pub fn monotonic() -> Duration {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call fills the given structure; it cannot fail for this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec as u32)
}

/// Reports when a command's process called exec.
#[derive(Debug)]
pub struct Exec(File);

impl Exec {
    /// Makes `command` report it. Call it last, as the steps before exec are executed in order.
    ///
    /// # Errors
    /// If no pipe can be made.
    pub fn of(command: &mut Command) -> Result<Self> {
        let (read, write) = io::pipe().doing("make a pipe")?;
        let write = OwnedFd::from(write);
        let note = move || {
            let now = monotonic().as_nanos().to_ne_bytes();
            // SAFETY: the length is that of the buffer.
            match unsafe { libc::write(write.as_raw_fd(), now.as_ptr().cast(), now.len()) } {
                n if n == now.len() as isize => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        };
        // SAFETY: the closure makes two system calls between fork and exec, and allocates nothing.
        unsafe { command.pre_exec(note) };
        Ok(Self(OwnedFd::from(read).into()))
    }

    /// When a started command called exec, by [`monotonic`].
    ///
    /// # Errors
    /// If it did not.
    pub fn at(mut self) -> Result<Duration> {
        let mut nanos = [0; size_of::<u128>()];
        self.0.read_exact(&mut nanos).doing("read when a program was started")?;
        Ok(Duration::from_nanos(u128::from_ne_bytes(nanos) as u64))
    }
}

/// Leaves `fd` open in the process of `command`, under the returned number. The command owns it.
pub fn inherit(command: &mut Command, fd: impl Into<OwnedFd>) -> RawFd {
    let fd = fd.into();
    let number = fd.as_raw_fd();
    let keep = move || {
        // SAFETY: clears close-on-exec of the child's copy of a descriptor that this closure holds
        // open.
        match unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, 0) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    // SAFETY: the closure makes one system call between fork and exec, and allocates nothing.
    unsafe { command.pre_exec(keep) };
    number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_started_between_before_and_after_with_what_it_inherits() {
        let (mut read, write) = io::pipe().unwrap();
        let mut command = Command::new("sh");
        let fd = inherit(&mut command, write);
        command.args(["-c", &format!("echo here >&{fd}")]);
        let exec = Exec::of(&mut command).unwrap();
        let before = monotonic();
        let mut child = command.spawn().unwrap();
        let after = monotonic();
        // Otherwise the pipe has no end.
        drop(command);
        let at = exec.at().unwrap();
        assert!(before <= at && at <= after, "{before:?} {at:?} {after:?}");
        let mut said = String::new();
        read.read_to_string(&mut said).unwrap();
        assert_eq!(said, "here\n");
        assert!(child.wait().unwrap().success());
    }
}
