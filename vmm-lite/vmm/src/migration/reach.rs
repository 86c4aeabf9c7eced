//! A TCP connection to the first of several addresses that answers.
//!
//! A name may stand for an address that nothing comes back from, such as one of IPv6 where only
//! IPv4 gets through. So each has a head start and no more, as RFC 8305 has it.

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

/// How long a peer may take to take a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// How long an address is tried alone before the next is tried beside it.
const HEAD_START: Duration = Duration::from_millis(250);

/// Connects to the first of `addresses` that answers, until it is called off; by `dialer`
/// where this process has no network.
///
/// # Errors
/// [`LinkError::Io`]: what the network says of the last that failed. [`LinkError::CalledOff`].
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

/// What came of a connection that was begun.
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

    /// An address that takes no connection and refuses none, for as long as the sockets live: its
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
        // The queue of one is full when this one stands; the next hears nothing.
        assert_eq!(
            CallOff::NEVER.wait(&[Watch::Writable(waits.as_raw_fd())], CONNECT).unwrap().unwrap(),
            [true]
        );
        (vec![listener, waits], at)
    }

    #[test]
    fn an_address_that_does_not_answer_keeps_nobody_from_the_next() {
        let (_full, silent) = silent();
        let refuses = SocketAddr::from(([127, 0, 0, 1], 1));
        let there = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let right = there.local_addr().unwrap();
        // That is not long enough to wait until one that says nothing is given up.
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
    fn while_nobody_answers_the_move_can_run_out_of_time() {
        let (_full, silent) = silent();
        let within = Some((Instant::now(), Duration::from_millis(20)));
        let came = reach(&[silent, silent], None, &CallOff::NEVER.within(within));
        assert!(matches!(came, Err(LinkError::CalledOff(_))), "{came:?}");
    }
}
