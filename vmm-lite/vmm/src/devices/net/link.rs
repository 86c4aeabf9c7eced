//! Waits until a network device carries packets.
//!
//! A TAP that was just opened has its carrier, but the kernel activates its transmit queue later,
//! by up to a second (link events are handled once a second at most), and until then drops what is
//! sent through it. A guest that arrives here must not depend on that.

use super::tap::Tap;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};
use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    time::{Duration, Instant},
};

/// Waits until packets pass through `tap` to the guest, at most `timeout`; returns whether they do.
/// They do not while the device is set down.
///
/// # Errors
/// What the host says.
pub fn wait_running(tap: &Tap, timeout: Duration) -> io::Result<bool> {
    let deadline = Instant::now() + timeout;
    // Listens from before the first check on, so that no change is missed.
    let events = Listening::to(tap.events()?)?;
    loop {
        if tap.running()? {
            return Ok(true);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        let mut poll = libc::pollfd { fd: events.0.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let left = left.as_millis().clamp(1, i32::MAX as u128) as i32;
        // SAFETY: one valid entry; whatever the outcome, the flags are checked again.
        unsafe { libc::poll(&raw mut poll, 1, left) };
        // The events' content does not matter, only that there were some.
        let mut buffer = [0; 8192];
        while recv(events.0.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT).is_ok() {}
    }
}

/// A socket for link changes in this network namespace. It does not receive any yet.
pub(super) fn events() -> io::Result<OwnedFd> {
    let fd = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        SockProtocol::NetlinkRoute,
    )?;
    bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
    Ok(fd)
}

/// A socket that receives changes until this is dropped.
struct Listening<'s>(&'s OwnedFd);

impl<'s> Listening<'s> {
    fn to(socket: &'s OwnedFd) -> io::Result<Self> {
        membership(socket, libc::NETLINK_ADD_MEMBERSHIP)?;
        Ok(Self(socket))
    }
}

impl Drop for Listening<'_> {
    fn drop(&mut self) {
        // The kernel discards further events when the socket is full, and the next listener
        // discards the rest.
        let _ = membership(self.0, libc::NETLINK_DROP_MEMBERSHIP);
    }
}

fn membership(socket: &OwnedFd, what: libc::c_int) -> io::Result<()> {
    let group = libc::RTNLGRP_LINK as libc::c_int;
    // SAFETY: a valid integer of the stated size.
    let r = unsafe {
        let size = size_of_val(&group) as libc::socklen_t;
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_NETLINK,
            what,
            (&raw const group).cast(),
            size,
        )
    };
    if r == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
