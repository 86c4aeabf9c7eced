//! Waits for several descriptors at once.

use std::{io, os::fd::RawFd, time::Duration};

/// What to wait for. A negative descriptor is never ready.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Watch {
    /// There is something to read, or the end of the stream.
    Readable(RawFd),
    /// There is room to write; for a connection attempt: it succeeded or failed.
    Writable(RawFd),
    /// The other end has closed.
    HungUp(RawFd),
}

/// Waits until one of `watched` is ready, at most `timeout`; returns which are. A signal ends the
/// wait early.
///
/// # Errors
/// The error of `ppoll`.
pub fn wait_any<const N: usize>(watched: [Watch; N], timeout: Duration) -> io::Result<[bool; N]> {
    let mut entries = watched.map(Watch::entry);
    wait(&mut entries, timeout)?;
    Ok(entries.map(|entry| entry.revents != 0))
}

/// The same, for any number of descriptors.
///
/// # Errors
/// The error of `ppoll`.
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
            // `ppoll` always reports this.
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
        // SAFETY: the count of valid entries, a valid time, no signal mask.
        unsafe { libc::ppoll(entries.as_mut_ptr(), count, &raw const time, std::ptr::null()) }
    });
    match n {
        -1 => match io::Error::last_os_error() {
            // The call wrote nothing: no entry is ready.
            e if e.kind() == io::ErrorKind::Interrupted => Ok(()),
            e => Err(e),
        },
        _ => Ok(()),
    }
}

/// Waits until a descriptor is readable, at most `timeout`.
///
/// # Errors
/// The error of `ppoll`.
pub fn wait_readable(fd: RawFd, timeout: Duration) -> io::Result<bool> {
    wait_any([Watch::Readable(fd)], timeout).map(|[readable]| readable)
}
