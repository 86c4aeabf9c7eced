//! Waiting for a network device to carry packets.
//!
//! A TAP that was just opened has its carrier, but the kernel puts its transmit queue to work later, by up to a second (link events are
//! handled once a second at most), and drops what is sent through it until then. A guest that arrives here must not depend on that.

use super::tap::Tap;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};
use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    time::{Duration, Instant},
};

/// Waits until packets go through `tap` to the guest, at most `patience`; whether they do. They do not while it is set down.
///
/// # Errors
/// What the host says.
pub fn wait_running(tap: &Tap, patience: Duration) -> io::Result<bool> {
    let deadline = Instant::now() + patience;
    // Events from before the first look are not missed, as the socket is older.
    let events = events()?;
    loop {
        if tap.running()? {
            return Ok(true);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        let mut poll = libc::pollfd { fd: events.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let left = left.as_millis().clamp(1, i32::MAX as u128) as i32;
        // SAFETY: one valid entry; whatever the outcome, the flags are looked at again.
        unsafe { libc::poll(&raw mut poll, 1, left) };
        // What the events say does not matter, only that there were some.
        let mut buffer = [0; 8192];
        while recv(events.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT).is_ok() {}
    }
}

/// A socket that is readable when any link of this network namespace has changed.
fn events() -> io::Result<OwnedFd> {
    let fd = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        SockProtocol::NetlinkRoute,
    )?;
    bind(fd.as_raw_fd(), &NetlinkAddr::new(0, libc::RTMGRP_LINK as u32))?;
    Ok(fd)
}
