//! No way to the network but by what is open: a network namespace with nothing in it.
//!
//! The TAP device, and what is listened on, stay in the namespace that they were opened in. A VM
//! that moves away gets its connections from a connector, which is in the network.

use nix::unistd::Uid;
use std::io;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Takes this process, which has one thread, into a network namespace of its own. One that is not
/// root's gets a user namespace too, where it may have that.
///
/// # Errors
/// A kernel, or a container, in which there is none for it.
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
    // SAFETY: changes what this process, which has one thread, sees of the host.
    match unsafe { libc::unshare(what) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
