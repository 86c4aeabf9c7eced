//! The socket between a signer and its users.

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{MsgFlags, recv, send},
};
use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    time::Duration,
};

/// Sends a message. A full socket is an error: no user has so many messages in transit.
pub(crate) fn put(socket: &OwnedFd, message: &[u8]) -> io::Result<()> {
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    Ok(send(socket.as_raw_fd(), message, flags).map(drop)?)
}

/// The next message; 0 at the end. A longer message is truncated.
pub(crate) fn take(socket: &OwnedFd, to: &mut [u8]) -> io::Result<usize> {
    loop {
        match recv(socket.as_raw_fd(), to, MsgFlags::empty()) {
            Err(nix::Error::EINTR) => {}
            taken => return Ok(taken?),
        }
    }
}

/// Waits until one of two can be read, at most `timeout`. A signal may end the wait early.
pub(crate) fn wait(
    sockets: [Option<&OwnedFd>; 2],
    most: Option<Duration>,
) -> io::Result<[bool; 2]> {
    let readable = |fd| PollFd::new(fd, PollFlags::POLLIN);
    let fds: Vec<BorrowedFd<'_>> = sockets.iter().flatten().map(|s| s.as_fd()).collect();
    let mut entries: Vec<PollFd<'_>> = fds.into_iter().map(readable).collect();
    let timeout = most
        .map_or(PollTimeout::NONE, |most| PollTimeout::try_from(most).unwrap_or(PollTimeout::MAX));
    match crate::host::watchdog::waits(|| poll(&mut entries, timeout)) {
        Ok(_) => {}
        Err(nix::Error::EINTR) => return Ok([false; 2]),
        Err(e) => return Err(e.into()),
    }
    let mut ready = entries.iter().map(|entry| entry.any().unwrap_or(true));
    Ok(sockets.map(|socket| socket.is_some() && ready.next().unwrap_or(false)))
}
