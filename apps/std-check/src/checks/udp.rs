//! UDP over loopback.

use super::tcp::noise;
use crate::check::{Failure, Outcome, join};
use crate::{checks, ensure, ensure_eq, ensure_error};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

checks!["udp": datagrams_keep_their_borders, empty_datagram, sizes, too_large, any_address,
    longer_than_the_buffer, connected, connected_filters, peek, read_timeout,
    nonblocking, blocking_receive_wakes, many_sockets, address_in_use, addresses,
    clones_share, burst,
    closed_after_sending];

fn bound() -> Result<(UdpSocket, SocketAddr), Failure> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    let address = socket.local_addr()?;
    Ok((socket, address))
}

fn datagrams_keep_their_borders() -> Outcome {
    let (a, from) = bound()?;
    let (b, to) = bound()?;
    for text in ["one", "three", "twelve"] {
        a.send_to(text.as_bytes(), to)?;
    }
    let mut buffer = [0; 100];
    for text in ["one", "three", "twelve"] {
        let (n, peer) = b.recv_from(&mut buffer)?;
        ensure_eq!((&buffer[..n], peer), (text.as_bytes(), from));
    }
    Ok(())
}

fn empty_datagram() -> Outcome {
    let (a, _) = bound()?;
    let (b, to) = bound()?;
    ensure_eq!(a.send_to(&[], to)?, 0);
    ensure_eq!(b.recv_from(&mut [0; 10])?.0, 0);
    Ok(())
}

fn sizes() -> Outcome {
    let (a, _) = bound()?;
    let (b, to) = bound()?;
    let mut buffer = vec![0; 2000];
    for len in [1, 100, 512, 1400, 1472] {
        let sent = noise(len);
        ensure_eq!(a.send_to(&sent, to)?, len);
        let n = b.recv(&mut buffer)?;
        ensure!(buffer[..n] == sent, "{len} bytes became {n}, or other ones");
    }
    Ok(())
}

fn too_large() -> Outcome {
    let (a, _) = bound()?;
    let (b, to) = bound()?;
    let sent = a.send_to(&vec![0; 65_508], to);
    ensure!(sent.is_err(), "a datagram longer than UDP can say was sent");
    a.send_to(b"still works", to)?;
    ensure_eq!(b.recv(&mut [0; 20])?, 11);
    Ok(())
}

fn any_address() -> Outcome {
    let server = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    server.set_read_timeout(Some(Duration::from_secs(10)))?;
    let (client, from) = bound()?;
    client.send_to(b"to any", (Ipv4Addr::LOCALHOST, server.local_addr()?.port()))?;
    let (n, peer) = server.recv_from(&mut [0; 10])?;
    ensure_eq!((n, peer), (6, from));
    server.send_to(b"back", peer)?;
    let (n, peer) = client.recv_from(&mut [0; 10])?;
    ensure_eq!((n, peer.port()), (4, server.local_addr()?.port()));
    Ok(())
}

fn longer_than_the_buffer() -> Outcome {
    let (a, _) = bound()?;
    let (b, to) = bound()?;
    a.send_to(b"0123456789", to)?;
    a.send_to(b"next", to)?;
    let mut buffer = [0; 4];
    ensure_eq!(b.recv(&mut buffer)?, 4);
    ensure_eq!(&buffer, b"0123");
    ensure_eq!(b.recv(&mut buffer)?, 4);
    ensure_eq!(&buffer, b"next");
    Ok(())
}

fn connected() -> Outcome {
    let (a, from) = bound()?;
    let (b, to) = bound()?;
    a.connect(to)?;
    b.connect(from)?;
    ensure_eq!(a.peer_addr()?, to);
    a.send(b"ping")?;
    let mut buffer = [0; 10];
    ensure_eq!(b.recv(&mut buffer)?, 4);
    b.send(b"pong!")?;
    ensure_eq!(a.recv(&mut buffer)?, 5);
    ensure_eq!(&buffer[..5], b"pong!");
    Ok(())
}

fn connected_filters() -> Outcome {
    let (a, to) = bound()?;
    let (friend, address) = bound()?;
    let (stranger, _) = bound()?;
    a.connect(address)?;
    stranger.send_to(b"psst", to)?;
    friend.send_to(b"hello", to)?;
    let mut buffer = [0; 10];
    let n = a.recv(&mut buffer)?;
    ensure_eq!(&buffer[..n], b"hello");
    Ok(())
}

fn peek() -> Outcome {
    let (a, from) = bound()?;
    let (b, to) = bound()?;
    a.send_to(b"look", to)?;
    let mut buffer = [0; 10];
    ensure_eq!(b.peek_from(&mut buffer)?, (4, from));
    ensure_eq!(b.peek(&mut buffer)?, 4);
    ensure_eq!(b.recv_from(&mut buffer)?, (4, from));
    Ok(())
}

fn read_timeout() -> Outcome {
    let (a, _) = bound()?;
    a.set_read_timeout(Some(Duration::from_millis(40)))?;
    ensure_eq!(a.read_timeout()?, Some(Duration::from_millis(40)));
    let start = Instant::now();
    ensure_error!(a.recv_from(&mut [0; 4]), WouldBlock | TimedOut);
    let took = start.elapsed();
    ensure!((35..60_000).contains(&took.as_millis()), "40 ms lasted {took:?}");
    Ok(())
}

fn nonblocking() -> Outcome {
    let (a, _) = bound()?;
    a.set_nonblocking(true)?;
    ensure_error!(a.recv_from(&mut [0; 4]), WouldBlock);
    Ok(())
}

fn blocking_receive_wakes() -> Outcome {
    let (a, _) = bound()?;
    let (b, to) = bound()?;
    let receiver = thread::spawn(move || b.recv(&mut [0; 10]));
    thread::sleep(Duration::from_millis(10));
    a.send_to(b"wake", to)?;
    ensure_eq!(join(receiver)??, 4);
    Ok(())
}

fn many_sockets() -> Outcome {
    let mut sockets = Vec::new();
    for _ in 0..100 {
        sockets.push(bound()?);
    }
    let (sender, _) = bound()?;
    for (n, (_, address)) in sockets.iter().enumerate() {
        sender.send_to(&[n as u8], *address)?;
    }
    for (n, (socket, _)) in sockets.iter().enumerate() {
        let mut byte = [0];
        socket.recv(&mut byte)?;
        ensure_eq!(usize::from(byte[0]), n);
    }
    Ok(())
}

fn address_in_use() -> Outcome {
    let (_socket, address) = bound()?;
    ensure_error!(UdpSocket::bind(address), AddrInUse);
    Ok(())
}

fn addresses() -> Outcome {
    let (a, address) = bound()?;
    ensure!(address.port() != 0 && address.ip().is_loopback(), "bound to {address}");
    ensure!(a.peer_addr().is_err(), "an unconnected socket has a peer");
    Ok(())
}

fn clones_share() -> Outcome {
    let (a, _) = bound()?;
    let (b, to) = bound()?;
    let twin = b.try_clone()?;
    drop(b);
    a.send_to(b"to the clone", to)?;
    ensure_eq!(twin.recv(&mut [0; 20])?, 12);
    Ok(())
}

fn burst() -> Outcome {
    // Datagrams wait for the reader, as far as buffers go; order is kept on loopback.
    let (a, _) = bound()?;
    let (b, to) = bound()?;
    for n in 0..16u8 {
        a.send_to(&[n; 64], to)?;
    }
    let mut buffer = [0; 64];
    for n in 0..16u8 {
        b.recv(&mut buffer)?;
        ensure_eq!(buffer[0], n);
    }
    Ok(())
}

/// Datagrams arrive, though the socket that sent them is closed before the first read.
fn closed_after_sending() -> Outcome {
    let (b, to) = bound()?;
    let mut buffer = [0; 100];
    for number in 0..200_u8 {
        let a = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        a.send_to(&[number], to)?;
        drop(a);
        // One at a time, so that there is always room, and nothing else wakes the waiting thread.
        if number % 2 == 1 {
            for expected in [number - 1, number] {
                let (n, _) = b.recv_from(&mut buffer)?;
                ensure_eq!(&buffer[..n], &[expected]);
            }
        }
    }
    Ok(())
}
