//! UDP: sends each datagram back to its sender.

use mio::net::UdpSocket;
use std::io::{self, ErrorKind};

/// Answers everything that has arrived. An answer that cannot be sent at once is dropped, as UDP
/// permits; an error caused by an earlier answer (its port is closed) concerns only that peer.
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
