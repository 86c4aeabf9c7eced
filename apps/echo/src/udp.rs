//! UDP: each datagram goes back to where it came from.

use mio::net::UdpSocket;
use std::io::{self, ErrorKind};

/// Answers all that has arrived. An answer that cannot be sent at once is dropped, as UDP may; an
/// error that an earlier answer met on its way (the port it went to is closed) concerns that peer
/// alone.
pub fn echo(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<()> {
    loop {
        match socket.recv_from(buffer) {
            Ok((n, peer)) => drop(socket.send_to(&buffer[..n], peer)),
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(e) if matches!(e.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionRefused) => {
            }
            Err(e) => return Err(e),
        }
    }
}
