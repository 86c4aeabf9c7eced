//! The socket between the two processes. It keeps message boundaries.

use super::protocol::MESSAGE_MAX;
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair},
};
use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    time::{Duration, Instant},
};

/// Two connected sockets: one for [`ArbiterClient`](super::ArbiterClient), one for
/// [`serve`](super::serve).
///
/// # Errors
/// The host's.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SockFlag::SOCK_CLOEXEC;
    Ok(socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?)
}

/// Sends a message, without waiting.
pub fn put(socket: &OwnedFd, message: &[u8]) -> io::Result<()> {
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    Ok(send(socket.as_raw_fd(), message, flags).map(drop)?)
}

/// The next message, without waiting; it is empty at the end.
pub fn take(socket: &OwnedFd) -> io::Result<Vec<u8>> {
    // A longer one is cut to this length, which no valid message has.
    let mut message = vec![0; MESSAGE_MAX + 1];
    loop {
        match recv(socket.as_raw_fd(), &mut message, MsgFlags::MSG_DONTWAIT) {
            Err(nix::Error::EINTR) => {}
            taken => {
                message.truncate(taken?);
                return Ok(message);
            }
        }
    }
}

/// Waits until there is a message or the end, at most until `end`. Whether there is.
pub fn wait(socket: &OwnedFd, end: Instant) -> io::Result<bool> {
    loop {
        let left = end.saturating_duration_since(Instant::now());
        // Rounded up, so that the wait does not end just before the time.
        let timeout = PollTimeout::try_from(left + Duration::from_millis(1));
        let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, timeout.unwrap_or(PollTimeout::MAX)) {
            Ok(0) if Instant::now() >= end => return Ok(false),
            Ok(0) | Err(nix::Error::EINTR) => {}
            Ok(_) => return Ok(true),
            Err(e) => return Err(e.into()),
        }
    }
}
