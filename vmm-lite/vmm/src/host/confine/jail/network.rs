//! No network but through open descriptors: an empty network namespace.
//!
//! The TAP device and the listening sockets stay in the namespace in which they were opened. A VM
//! that moves away gets its connections from a connector, which has the network.

use nix::unistd::Uid;
use std::io;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Moves this process, which has one thread, into a network namespace of its own. A process that is
/// not root's gets a user namespace too, where the host allows that.
///
/// # Errors
/// The kernel or the container does not allow a new namespace.
pub fn leave() -> Result<(), Failure> {
    let left = match unshare(libc::CLONE_NEWNET) {
        Err(e) if e.raw_os_error() == Some(libc::EPERM) && !Uid::effective().is_root() => {
            unshare(libc::CLONE_NEWNET | libc::CLONE_NEWUSER)
        }
        left => left,
    };
    left.map_err(|e| format!("cannot make a network namespace: {e}").into())
}

fn unshare(what: libc::c_int) -> io::Result<()> {
    // SAFETY: changes only what this process, which has one thread, sees of the host.
    match unsafe { libc::unshare(what) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
