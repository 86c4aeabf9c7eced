//! TCP: blocking, nonblocking, and timeouts.

use super::tcp::{listen, noise, pair};
use crate::check::{Outcome, failed, join};
use crate::{checks, ensure, ensure_eq, ensure_error};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

checks!["tcp_waits": read_blocks_until_data, accept_blocks_until_connect, many_accept_at_once,
    read_timeout, timeouts_are_kept, zero_timeout_is_refused, write_timeout,
    nonblocking_read, nonblocking_accept, nonblocking_write_fills_up, connect_timeout,
        two_threads_one_socket, peek];

fn read_blocks_until_data() -> Outcome {
    let (mut client, mut server) = pair()?;
    let reader = thread::spawn(move || {
        let mut byte = [0];
        server.read(&mut byte).map(|n| (n, byte, Instant::now()))
    });
    thread::sleep(Duration::from_millis(20));
    let written = Instant::now();
    client.write_all(b"x")?;
    let (n, byte, read) = join(reader)??;
    ensure_eq!((n, &byte), (1, b"x"));
    ensure!(read >= written, "the read ended before there was anything");
    Ok(())
}

fn accept_blocks_until_connect() -> Outcome {
    let (listener, address) = listen()?;
    let server = thread::spawn(move || listener.accept().map(|(_, peer)| peer));
    thread::sleep(Duration::from_millis(10));
    let client = TcpStream::connect(address)?;
    ensure_eq!(join(server)??, client.local_addr()?);
    Ok(())
}

fn many_accept_at_once() -> Outcome {
    let (listener, address) = listen()?;
    let mut servers = Vec::new();
    for _ in 0..8 {
        let listener = listener.try_clone()?;
        servers.push(thread::spawn(move || listener.accept().map(|(_, peer)| peer)));
    }
    let clients: Vec<_> = (0..8).map(|_| TcpStream::connect(address)).collect::<Result<_, _>>()?;
    let mut accepted = Vec::new();
    for server in servers {
        accepted.push(join(server)??);
    }
    for client in &clients {
        let ours = client.local_addr()?;
        ensure!(accepted.contains(&ours), "no thread got the connection from {ours}");
    }
    Ok(())
}

fn read_timeout() -> Outcome {
    let (client, mut server) = pair()?;
    server.set_read_timeout(Some(Duration::from_millis(30)))?;
    let start = Instant::now();
    ensure_error!(server.read(&mut [0; 4]), WouldBlock | TimedOut);
    let took = start.elapsed();
    ensure!((25..60_000).contains(&took.as_millis()), "30 ms lasted {took:?}");
    // Data within the timeout is read, and the end of the stream is not a timeout.
    (&client).write_all(b"in time")?;
    ensure_eq!(server.read(&mut [0; 7])?, 7);
    drop(client);
    ensure_eq!(server.read(&mut [0; 4])?, 0);
    Ok(())
}

fn timeouts_are_kept() -> Outcome {
    let (client, _server) = pair()?;
    ensure_eq!(client.read_timeout()?, None);
    client.set_read_timeout(Some(Duration::from_millis(1500)))?;
    client.set_write_timeout(Some(Duration::from_secs(7)))?;
    ensure_eq!(client.read_timeout()?, Some(Duration::from_millis(1500)));
    ensure_eq!(client.write_timeout()?, Some(Duration::from_secs(7)));
    client.set_read_timeout(None)?;
    ensure_eq!(client.read_timeout()?, None);
    Ok(())
}

fn zero_timeout_is_refused() -> Outcome {
    let (client, _server) = pair()?;
    ensure_error!(client.set_read_timeout(Some(Duration::ZERO)), InvalidInput);
    Ok(())
}

fn write_timeout() -> Outcome {
    let (mut client, _server) = pair()?;
    client.set_write_timeout(Some(Duration::from_millis(30)))?;
    let block = noise(1 << 20);
    let error = (0..200).find_map(|_| client.write_all(&block).err());
    let error = error.ok_or_else(|| failed("200 MiB went to a peer that does not read"))?;
    ensure!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error:?}");
    Ok(())
}

fn nonblocking_read() -> Outcome {
    let (mut client, mut server) = pair()?;
    server.set_nonblocking(true)?;
    ensure_error!(server.read(&mut [0; 4]), WouldBlock);
    client.write_all(b"now")?;
    let start = Instant::now();
    let mut buffer = [0; 8];
    let n = loop {
        match server.read(&mut buffer) {
            Err(e)
                if e.kind() == ErrorKind::WouldBlock
                    && start.elapsed() < Duration::from_secs(60) =>
            {
                thread::yield_now();
            }
            other => break other?,
        }
    };
    ensure_eq!(&buffer[..n], b"now");
    server.set_nonblocking(false)?;
    drop(client);
    ensure_eq!(server.read(&mut buffer)?, 0);
    Ok(())
}

fn nonblocking_accept() -> Outcome {
    let (listener, address) = listen()?;
    listener.set_nonblocking(true)?;
    ensure_error!(listener.accept(), WouldBlock);
    let _client = TcpStream::connect(address)?;
    let start = Instant::now();
    while let Err(error) = listener.accept() {
        ensure!(
            error.kind() == ErrorKind::WouldBlock && start.elapsed() < Duration::from_secs(60),
            "{error:?}"
        );
        thread::yield_now();
    }
    Ok(())
}

fn nonblocking_write_fills_up() -> Outcome {
    let (mut client, mut server) = pair()?;
    client.set_nonblocking(true)?;
    let block = noise(64 << 10);
    let mut sent = 0usize;
    let error = loop {
        match client.write(&block) {
            Ok(n) => sent += n,
            Err(e) => break e,
        }
        ensure!(sent < 256 << 20, "256 MiB went to a peer that does not read");
    };
    ensure_eq!(error.kind(), ErrorKind::WouldBlock);
    drop(client);
    let mut received = 0;
    let mut buffer = vec![0; 64 << 10];
    loop {
        match server.read(&mut buffer)? {
            0 => break,
            n => received += n,
        }
    }
    ensure_eq!(received, sent);
    Ok(())
}

fn connect_timeout() -> Outcome {
    let (listener, address) = listen()?;
    let client = TcpStream::connect_timeout(&address, Duration::from_secs(10))?;
    ensure_eq!(client.peer_addr()?, address);
    drop(listener);
    ensure_error!(
        TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], 1)), Duration::from_secs(10)),
        ConnectionRefused
    );
    // Either may come first: the connection is tried before the time is checked.
    let refused = TcpStream::connect_timeout(&address, Duration::ZERO);
    ensure_error!(refused, InvalidInput | ConnectionRefused);
    Ok(())
}

fn two_threads_one_socket() -> Outcome {
    // One thread waits in a read while another writes on the same socket.
    let (client, mut server) = pair()?;
    let mut reading = client.try_clone()?;
    let reader = thread::spawn(move || {
        let mut buffer = [0; 5];
        reading.read_exact(&mut buffer).map(|()| buffer)
    });
    thread::sleep(Duration::from_millis(5));
    (&client).write_all(b"ping!")?;
    let mut buffer = [0; 5];
    server.read_exact(&mut buffer)?;
    server.write_all(b"pong!")?;
    ensure_eq!(&join(reader)??, b"pong!");
    Ok(())
}

fn peek() -> Outcome {
    let (mut client, mut server) = pair()?;
    client.write_all(b"look")?;
    let mut buffer = [0; 4];
    let n = server.peek(&mut buffer)?;
    ensure!(n > 0 && buffer[..n] == b"look"[..n], "peek saw {:?}", &buffer[..n]);
    server.read_exact(&mut buffer)?;
    ensure_eq!(&buffer, b"look");
    drop(client);
    ensure_eq!(server.peek(&mut buffer)?, 0);
    Ok(())
}
