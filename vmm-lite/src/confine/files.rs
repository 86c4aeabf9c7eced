//! Descriptors that the process inherited.

use super::Error;
use std::io;

/// Closes everything but standard input, output and error. To be called first, before the process opens anything of its own.
///
/// # Errors
/// What the host says.
pub fn close_inherited() -> Result<(), Error> {
    // SAFETY: the caller has opened nothing yet, so that nothing in this process relies on what is closed.
    match unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) } {
        0 => Ok(()),
        _ => match io::Error::last_os_error() {
            // Before Linux 5.9. Whoever starts vmm-lite then has to see to it.
            e if e.raw_os_error() == Some(libc::ENOSYS) => Ok(()),
            source => Err(Error::Call { doing: "close inherited descriptors", source }),
        },
    }
}
