//! A TCP connection to the first of several addresses that answers.
//!
//! A name may resolve to an address that never answers, such as one of IPv6 where only IPv4 is
//! routed. So each address gets only a head start, as RFC 8305 describes.

use super::{called_off::failure, connection::LinkError, connector::Dialer};
use crate::host::poll::Watch;
use crate::vm::CallOff;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, connect, getsockopt, socket,
    sockopt::SocketError,
};
use std::{
    io,
    net::{SocketAddr, TcpStream},
    os::fd::{AsRawFd, OwnedFd},
    time::{Duration, Instant},
};

/// The timeout for a connection attempt.
const CONNECT: Duration = Duration::from_secs(5);
/// How long an address is tried alone before the next is tried in parallel.
const HEAD_START: Duration = Duration::from_millis(250);

/// Connects to the first of `addresses` that answers, until it is cancelled; by `dialer` where this
/// process has no network.
///
/// # Errors
/// [`LinkError::Io`]: the network's error for the last address that failed.
/// [`LinkError::CalledOff`].
pub fn reach(
    addresses: &[SocketAddr],
    dialer: Option<&Dialer>,
    call_off: &CallOff,
) -> Result<TcpStream, LinkError> {
    let end = Instant::now() + CONNECT;
    let mut left = addresses.iter().enumerate();
    let mut trying: Vec<OwnedFd> = Vec::new();
    let mut failed = io::Error::from(io::ErrorKind::AddrNotAvailable);
    loop {
        let mut timeout = end.saturating_duration_since(Instant::now());
        if let Some((place, address)) = left.next() {
            match dialer.map_or_else(|| begin(*address), |dialer| dialer.begin(place)) {
                Ok(socket) => trying.push(socket),
                Err(e) => {
                    failed = e;
                    continue;
                }
            }
            timeout = timeout.min(HEAD_START);
        }
        if trying.is_empty() {
            return Err(failed.into());
        }
        let watched: Vec<_> = trying.iter().map(|s| Watch::Writable(s.as_raw_fd())).collect();
        let ready = call_off.wait(&watched, timeout)?.map_err(|off| failure(off, "connecting"))?;
        if !ready.contains(&true) && end <= Instant::now() {
            return Err(io::Error::from(io::ErrorKind::TimedOut).into());
        }
        for at in (0..ready.len()).rev().filter(|at| ready[*at]) {
            let socket = trying.remove(at);
            match stands(&socket) {
                Ok(()) => {
                    let stream = TcpStream::from(socket);
                    stream.set_nonblocking(false)?;
                    return Ok(stream);
                }
                Err(e) => failed = e,
            }
        }
    }
}

/// Begins to connect.
pub(super) fn begin(to: SocketAddr) -> io::Result<OwnedFd> {
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket(family, SockType::Stream, flags, None)?;
    match connect(socket.as_raw_fd(), &SockaddrStorage::from(to)) {
        Ok(()) | Err(nix::Error::EINPROGRESS) => Ok(socket),
        Err(e) => Err(e.into()),
    }
}

/// The result of a connection attempt.
fn stands(socket: &OwnedFd) -> io::Result<()> {
    match getsockopt(socket, SocketError)? {
        0 => Ok(()),
        e => Err(io::Error::from_raw_os_error(e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{Backlog, bind, getsockname, listen};

    /// An address that neither accepts nor refuses connections while the sockets are open: its
    /// queue is full.
    fn silent() -> (Vec<OwnedFd>, SocketAddr) {
        let any = SockaddrStorage::from("127.0.0.1:0".parse::<SocketAddr>().unwrap());
        let flags = SockFlag::SOCK_CLOEXEC;
        let listener = socket(AddressFamily::Inet, SockType::Stream, flags, None).unwrap();
        bind(listener.as_raw_fd(), &any).unwrap();
        listen(&listener, Backlog::new(0).unwrap()).unwrap();
        let at: SockaddrStorage = getsockname(listener.as_raw_fd()).unwrap();
        let at = SocketAddr::from(*at.as_sockaddr_in().unwrap());
        let waits = begin(at).unwrap();
        // The queue of one is full once this connects; the next gets no answer.
        assert_eq!(
            CallOff::NEVER.wait(&[Watch::Writable(waits.as_raw_fd())], CONNECT).unwrap().unwrap(),
            [true]
        );
        (vec![listener, waits], at)
    }

    #[test]
    fn a_silent_address_does_not_delay_the_next() {
        let (_full, silent) = silent();
        let refuses = SocketAddr::from(([127, 0, 0, 1], 1));
        let there = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let right = there.local_addr().unwrap();
        // This is too short to wait until a silent address times out.
        let within = Some((Instant::now(), CONNECT - Duration::from_millis(500)));
        let call_off = CallOff::NEVER.within(within);
        let stream =
            reach(&[silent, refuses, silent, right], None, &call_off).expect("the last answers");
        assert_eq!(stream.peer_addr().unwrap(), right);
    }

    #[test]
    fn if_none_answers_the_networks_error_is_reported() {
        let refuses = SocketAddr::from(([127, 0, 0, 1], 1));
        match reach(&[refuses, refuses], None, &CallOff::NEVER) {
            Err(LinkError::Io(e)) => assert_eq!(e.kind(), io::ErrorKind::ConnectionRefused),
            other => panic!("{other:?}"),
        }
        assert!(matches!(reach(&[], None, &CallOff::NEVER), Err(LinkError::Io(_))));
    }

    #[test]
    fn the_moves_timeout_ends_a_connection_attempt() {
        let (_full, silent) = silent();
        let within = Some((Instant::now(), Duration::from_millis(20)));
        let came = reach(&[silent, silent], None, &CallOff::NEVER.within(within));
        assert!(matches!(came, Err(LinkError::CalledOff(_))), "{came:?}");
    }
}
