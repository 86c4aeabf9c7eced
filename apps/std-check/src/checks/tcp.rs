//! TCP over loopback: data, addresses, options.

use crate::check::{Failure, Outcome, join, skip};
use crate::{checks, ensure, ensure_eq, ensure_error};
use std::io::{BufRead, BufReader, IoSlice, IoSliceMut, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;

checks!["tcp": round_trip, bulk_one_way, bulk_both_ways, addresses, any_address, foreign_address,
    ipv6, port_zero_is_assigned, address_in_use, port_is_free_after_close,
    many_connections, connections_in_turn, backlog, clones_share, vectored, small_writes_arrive,
        nodelay, options, incoming];

/// A listener on loopback, and its address.
pub fn listen() -> Result<(TcpListener, SocketAddr), Failure> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// The two ends of a connection: the client's, the server's.
pub fn pair() -> Result<(TcpStream, TcpStream), Failure> {
    let (listener, address) = listen()?;
    let client = TcpStream::connect(address)?;
    let (server, peer) = listener.accept()?;
    ensure_eq!(peer, client.local_addr()?);
    Ok((client, server))
}

/// Bytes in which a lost or doubled one is noticed.
pub fn noise(len: usize) -> Vec<u8> {
    (0..len as u64).map(|i| (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8).collect()
}

fn round_trip() -> Outcome {
    let (mut client, mut server) = pair()?;
    let mut buffer = [0; 16];
    for n in 0..100u8 {
        client.write_all(&[n, n + 1])?;
        server.read_exact(&mut buffer[..2])?;
        ensure_eq!(&buffer[..2], &[n, n + 1]);
        server.write_all(&[n])?;
        client.read_exact(&mut buffer[..1])?;
        ensure_eq!(buffer[0], n);
    }
    Ok(())
}

const BULK: usize = 4 << 20;

fn bulk_one_way() -> Outcome {
    let (mut client, mut server) = pair()?;
    let writer = thread::spawn(move || client.write_all(&noise(BULK)));
    let mut received = Vec::new();
    server.read_to_end(&mut received)?;
    join(writer)??;
    ensure!(received == noise(BULK), "of {BULK} bytes {} arrived, or other ones", received.len());
    Ok(())
}

fn bulk_both_ways() -> Outcome {
    let (client, server) = pair()?;
    let send = |stream: &TcpStream| -> Result<thread::JoinHandle<std::io::Result<()>>, Failure> {
        let mut stream = stream.try_clone()?;
        Ok(thread::spawn(move || {
            stream.write_all(&noise(BULK / 2))?;
            stream.shutdown(Shutdown::Write)
        }))
    };
    let receive = |mut stream: TcpStream| {
        thread::spawn(move || {
            let mut received = Vec::new();
            stream.read_to_end(&mut received).map(|_| received)
        })
    };
    let senders = [send(&client)?, send(&server)?];
    for received in [receive(client), receive(server)] {
        ensure!(join(received)?? == noise(BULK / 2), "other bytes arrived");
    }
    for sender in senders {
        join(sender)??;
    }
    Ok(())
}

fn addresses() -> Outcome {
    let (client, server) = pair()?;
    ensure_eq!(client.peer_addr()?, server.local_addr()?);
    ensure_eq!(client.local_addr()?, server.peer_addr()?);
    ensure!(
        client.peer_addr()?.ip().is_loopback(),
        "the peer's address is not the one connected to"
    );
    ensure!(client.local_addr()?.port() != 0, "a connected socket has port 0");
    Ok(())
}

fn any_address() -> Outcome {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    let port = listener.local_addr()?.port();
    ensure!(listener.local_addr()?.ip().is_unspecified(), "it is bound to less than all");
    let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    let (mut server, peer) = listener.accept()?;
    // The accepted end knows the address to which its client connected.
    ensure_eq!(server.local_addr()?, SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    ensure_eq!(peer, client.local_addr()?);
    client.write_all(b"x")?;
    server.read_exact(&mut [0])?;
    Ok(())
}

fn foreign_address() -> Outcome {
    // TEST-NET-1 belongs to no host.
    ensure_error!(TcpListener::bind(("192.0.2.1", 0)), AddrNotAvailable);
    Ok(())
}

fn ipv6() -> Outcome {
    let listener = match TcpListener::bind((Ipv6Addr::LOCALHOST, 0)) {
        Ok(listener) => listener,
        Err(error) => return skip(format_args!("this system has no IPv6: {error}")),
    };
    let mut client = TcpStream::connect(listener.local_addr()?)?;
    client.write_all(b"six")?;
    let (mut server, peer) = listener.accept()?;
    ensure_eq!(peer, client.local_addr()?);
    let mut buffer = [0; 3];
    server.read_exact(&mut buffer)?;
    ensure_eq!(&buffer, b"six");
    Ok(())
}

fn port_zero_is_assigned() -> Outcome {
    let (one, first) = listen()?;
    let (two, second) = listen()?;
    ensure!(first.port() != 0 && second.port() != 0, "port 0 was left at 0");
    ensure!(first.port() != second.port(), "two listeners got the same port");
    drop((one, two));
    Ok(())
}

fn address_in_use() -> Outcome {
    let (_listener, address) = listen()?;
    ensure_error!(TcpListener::bind(address), AddrInUse);
    Ok(())
}

fn port_is_free_after_close() -> Outcome {
    let (listener, address) = listen()?;
    let client = TcpStream::connect(address)?;
    drop(listener.accept()?);
    drop((client, listener));
    let again = TcpListener::bind(address)?;
    ensure_eq!(again.local_addr()?, address);
    Ok(())
}

fn many_connections() -> Outcome {
    let (listener, address) = listen()?;
    let mut pairs = Vec::new();
    for _ in 0..200 {
        let client = TcpStream::connect(address)?;
        pairs.push((client, listener.accept()?.0));
    }
    for (n, (client, _)) in pairs.iter_mut().enumerate() {
        client.write_all(&(n as u32).to_le_bytes())?;
    }
    for (n, (_, server)) in pairs.iter_mut().enumerate().rev() {
        let mut bytes = [0; 4];
        server.read_exact(&mut bytes)?;
        ensure_eq!(u32::from_le_bytes(bytes), n as u32);
    }
    Ok(())
}

fn connections_in_turn() -> Outcome {
    let (listener, address) = listen()?;
    let server = thread::spawn(move || -> std::io::Result<()> {
        for _ in 0..1000 {
            let (mut stream, _) = listener.accept()?;
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes)?;
            stream.write_all(&bytes)?;
        }
        Ok(())
    });
    for n in 0..1000u32 {
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(&n.to_le_bytes())?;
        stream.shutdown(Shutdown::Write)?;
        let mut back = Vec::new();
        stream.read_to_end(&mut back)?;
        ensure_eq!(back, n.to_le_bytes());
    }
    Ok(join(server)??)
}

fn backlog() -> Outcome {
    let (listener, address) = listen()?;
    // All connected and written to before the first is accepted.
    let mut clients = Vec::new();
    for n in 0..64u8 {
        let mut client = TcpStream::connect(address)?;
        client.write_all(&[n])?;
        clients.push(client);
    }
    for client in &clients {
        let (mut server, peer) = listener.accept()?;
        let mut byte = [0];
        server.read_exact(&mut byte)?;
        let from = &clients[usize::from(byte[0])];
        ensure_eq!(from.local_addr()?, peer);
        ensure_eq!(client.peer_addr()?, address);
    }
    Ok(())
}

fn clones_share() -> Outcome {
    let (client, mut server) = pair()?;
    let mut twin = client.try_clone()?;
    drop(client); // The clone keeps the connection open.
    twin.write_all(b"from the clone")?;
    let mut buffer = [0; 14];
    server.read_exact(&mut buffer)?;
    ensure_eq!(&buffer, b"from the clone");
    drop(twin);
    ensure_eq!(server.read(&mut buffer)?, 0);
    Ok(())
}

fn vectored() -> Outcome {
    let (mut client, mut server) = pair()?;
    let n =
        client.write_vectored(&[IoSlice::new(b"ab"), IoSlice::new(b""), IoSlice::new(b"cde")])?;
    ensure!(n >= 1, "nothing was written");
    client.shutdown(Shutdown::Write)?;
    let (mut a, mut b) = ([0; 1], [0; 10]);
    let mut got = Vec::new();
    loop {
        let n = server.read_vectored(&mut [IoSliceMut::new(&mut a), IoSliceMut::new(&mut b)])?;
        if n == 0 {
            break;
        }
        got.extend([&a[..n.min(1)], &b[..n - n.min(1)]].concat());
    }
    ensure_eq!(got, &b"abcde"[..n]);
    Ok(())
}

fn small_writes_arrive() -> Outcome {
    let (mut client, server) = pair()?;
    let writer = thread::spawn(move || (0..5000u32).try_for_each(|n| writeln!(client, "{n}")));
    let mut count = 0u32;
    for line in BufReader::new(server).lines() {
        ensure_eq!(line?.parse::<u32>()?, count);
        count += 1;
    }
    ensure_eq!(count, 5000);
    Ok(join(writer)??)
}

fn nodelay() -> Outcome {
    let (client, _server) = pair()?;
    for on in [true, false, true] {
        client.set_nodelay(on)?;
        ensure_eq!(client.nodelay()?, on);
    }
    Ok(())
}

fn options() -> Outcome {
    let (client, _server) = pair()?;
    client.set_ttl(42)?;
    ensure_eq!(client.ttl()?, 42);
    ensure!(client.take_error()?.is_none(), "a fresh connection has an error");
    Ok(())
}

fn incoming() -> Outcome {
    let (listener, address) = listen()?;
    let clients = thread::spawn(move || {
        (0..5).map(|_| TcpStream::connect(address)).collect::<Result<Vec<_>, _>>()
    });
    let accepted: Result<Vec<_>, _> = listener.incoming().take(5).collect();
    ensure_eq!(accepted?.len(), 5);
    ensure_eq!(join(clients)??.len(), 5);
    Ok(())
}
