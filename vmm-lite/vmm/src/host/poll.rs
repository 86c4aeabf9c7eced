//! Waiting for several descriptors at once.

use std::{io, os::fd::RawFd, time::Duration};

/// What to wait for. A negative descriptor never is ready.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Watch {
    /// Something to read, or the end of it.
    Readable(RawFd),
    /// Room to write; of a connection in the making, that it stands or has failed.
    Writable(RawFd),
    /// Nobody at the other end any more.
    HungUp(RawFd),
}

/// Waits until one of `watched` is ready, at most `timeout`; says which are. A signal ends the
/// wait early.
///
/// # Errors
/// What `ppoll` says.
pub fn wait_any<const N: usize>(watched: [Watch; N], timeout: Duration) -> io::Result<[bool; N]> {
    let mut entries = watched.map(Watch::entry);
    wait(&mut entries, timeout)?;
    Ok(entries.map(|entry| entry.revents != 0))
}

/// The same, of as many as there are.
///
/// # Errors
/// What `ppoll` says.
pub fn wait_some(watched: &[Watch], timeout: Duration) -> io::Result<Vec<bool>> {
    let mut entries: Vec<_> = watched.iter().map(|watch| watch.entry()).collect();
    wait(&mut entries, timeout)?;
    Ok(entries.iter().map(|entry| entry.revents != 0).collect())
}

impl Watch {
    fn entry(self) -> libc::pollfd {
        let (fd, events) = match self {
            Self::Readable(fd) => (fd, libc::POLLIN),
            Self::Writable(fd) => (fd, libc::POLLOUT),
            // That is always told.
            Self::HungUp(fd) => (fd, 0),
        };
        libc::pollfd { fd, events, revents: 0 }
    }
}

fn wait(entries: &mut [libc::pollfd], timeout: Duration) -> io::Result<()> {
    let time = libc::timespec {
        tv_sec: timeout.as_secs().min(1 << 30) as libc::time_t,
        tv_nsec: timeout.subsec_nanos().into(),
    };
    let count = entries.len() as libc::nfds_t;
    let n = crate::host::watchdog::waits(|| {
        // SAFETY: that many valid entries, a valid time, no signal mask.
        unsafe { libc::ppoll(entries.as_mut_ptr(), count, &raw const time, std::ptr::null()) }
    });
    match n {
        -1 => match io::Error::last_os_error() {
            // Nothing was written: no entry is ready.
            e if e.kind() == io::ErrorKind::Interrupted => Ok(()),
            e => Err(e),
        },
        _ => Ok(()),
    }
}

/// Waits until a descriptor is readable, at most that long.
///
/// # Errors
/// What `ppoll` says.
pub fn wait_readable(fd: RawFd, timeout: Duration) -> io::Result<bool> {
    wait_any([Watch::Readable(fd)], timeout).map(|[readable]| readable)
}
