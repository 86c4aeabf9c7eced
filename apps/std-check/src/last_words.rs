//! Data that a program sends right before it ends: `std-check --send ADDRESS --die WAY`.

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};

/// Number of datagrams; each contains its number.
const DATAGRAMS: u8 = 10;
/// Length of the stream, more than is in transit at a time.
const STREAM: usize = 200_000;

/// Sends a stream, and datagrams, each on a socket of its own. It waits for no answer, and leaves
/// nothing open.
pub fn send(to: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect(to)?;
    stream.write_all(&vec![b'x'; STREAM])?;
    // Last, so that the program waits for nothing between these and its end.
    for number in 0..DATAGRAMS {
        UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?.send_to(&[number], to)?;
    }
    Ok(())
}
