//! Descriptors that the process inherited.

use super::Error;
use std::{io, os::fd::RawFd};

/// Closes all descriptors but standard input, output and error and those in `keep`. Call it first,
/// before the process opens anything of its own.
///
/// # Errors
/// What the host says.
pub fn close_inherited(keep: &[RawFd]) -> Result<(), Error> {
    let mut keep: Vec<u32> = keep.iter().filter_map(|fd| u32::try_from(*fd).ok()).collect();
    keep.sort_unstable();
    let mut first = 3;
    for fd in keep {
        if fd > first {
            close_range(first, fd - 1)?;
        }
        first = first.max(fd + 1);
    }
    close_range(first, u32::MAX)
}

fn close_range(first: u32, last: u32) -> Result<(), Error> {
    // SAFETY: the caller has opened nothing yet, so nothing in this process relies on the
    // descriptors that are closed.
    match unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } {
        0 => Ok(()),
        _ => match io::Error::last_os_error() {
            // Before Linux 5.9, the process that starts vmm-lite has to close them.
            e if e.raw_os_error() == Some(libc::ENOSYS) => Ok(()),
            source => Err(Error::Call { doing: "close inherited descriptors", source }),
        },
    }
}
