//! TCP: how connections end, and how they fail to begin.

use super::tcp::{listen, noise, pair};
use crate::check::{Outcome, failed, join};
use crate::{checks, ensure, ensure_eq, ensure_error};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

checks!["tcp_ends": close_is_end_of_stream, half_close, shutdown_read, shutdown_wakes_a_reader,
    write_after_peer_closed, reset_on_unread_data,
    data_before_close_arrives, refused, refused_after_listener_closed, unconnected_shutdown_twice,
        pending_connection_of_closed_listener];

fn close_is_end_of_stream() -> Outcome {
    let (client, mut server) = pair()?;
    drop(client);
    ensure_eq!(server.read(&mut [0; 4])?, 0);
    ensure_eq!(server.read(&mut [0; 4])?, 0);
    Ok(())
}

fn half_close() -> Outcome {
    let (mut client, mut server) = pair()?;
    client.write_all(b"question")?;
    client.shutdown(Shutdown::Write)?;
    ensure_error!(client.write(b"more"), BrokenPipe);
    let mut text = String::new();
    server.read_to_string(&mut text)?;
    ensure_eq!(text, "question");
    // The other direction is still open, also for more than can be in transit at once.
    let writer = thread::spawn(move || server.write_all(&noise(300_000)));
    let mut answer = Vec::new();
    client.read_to_end(&mut answer)?;
    join(writer)??;
    ensure!(answer == noise(300_000), "of 300000 bytes {} came back, or other ones", answer.len());
    Ok(())
}

fn shutdown_read() -> Outcome {
    let (mut client, _server) = pair()?;
    client.shutdown(Shutdown::Read)?;
    ensure_eq!(client.read(&mut [0; 4])?, 0);
    Ok(())
}

fn shutdown_wakes_a_reader() -> Outcome {
    let (client, _server) = pair()?;
    let mut reading = client.try_clone()?;
    let reader = thread::spawn(move || reading.read(&mut [0; 4]));
    thread::sleep(Duration::from_millis(10));
    client.shutdown(Shutdown::Both)?;
    ensure_eq!(join(reader)??, 0);
    Ok(())
}

fn write_after_peer_closed() -> Outcome {
    let (mut client, server) = pair()?;
    drop(server);
    // The first writes may still succeed: the peer's reset has to arrive.
    let start = Instant::now();
    let error = loop {
        if let Err(error) = client.write(b"anyone there?") {
            break error;
        }
        ensure!(start.elapsed() < Duration::from_secs(60), "writes to a closed peer continue");
        thread::sleep(Duration::from_millis(1));
    };
    ensure!(
        matches!(
            error.kind(),
            ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted
        ),
        "{error:?}"
    );
    Ok(())
}

fn reset_on_unread_data() -> Outcome {
    let (mut client, server) = pair()?;
    client.write_all(b"never read")?;
    server.peek(&mut [0; 4])?; // It has arrived.
    drop(server);
    match client.read(&mut [0; 4]) {
        Ok(0) => Ok(()), // As good: the end is seen.
        Ok(n) => Err(failed(format_args!("{n} bytes from nowhere"))),
        Err(e) if e.kind() == ErrorKind::ConnectionReset => Ok(()),
        Err(e) => Err(e.into()),
    }
}

fn data_before_close_arrives() -> Outcome {
    for len in [1, 1000, 50_000] {
        let (mut client, mut server) = pair()?;
        let sent = noise(len);
        // Closes as soon as it has written, which may be before anything is read.
        let writer = thread::spawn(move || client.write_all(&sent));
        thread::sleep(Duration::from_millis(2));
        let mut received = Vec::new();
        server.read_to_end(&mut received)?;
        join(writer)??;
        ensure!(received == noise(len), "of {len} bytes {} arrived before the end", received.len());
    }
    Ok(())
}

fn refused() -> Outcome {
    ensure_error!(TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], 1))), ConnectionRefused);
    Ok(())
}

fn refused_after_listener_closed() -> Outcome {
    let (listener, address) = listen()?;
    drop(listener);
    ensure_error!(TcpStream::connect(address), ConnectionRefused);
    Ok(())
}

fn unconnected_shutdown_twice() -> Outcome {
    let (client, server) = pair()?;
    client.shutdown(Shutdown::Both)?;
    drop(server);
    // Again: nothing to do, or not connected any more; both are correct, a panic or hang is not.
    let _either = client.shutdown(Shutdown::Both);
    Ok(())
}

fn pending_connection_of_closed_listener() -> Outcome {
    let (listener, address): (TcpListener, SocketAddr) = listen()?;
    let mut client = TcpStream::connect(address)?;
    drop(listener); // With the connection in its backlog.
    client.set_read_timeout(Some(Duration::from_secs(10)))?;
    match client.read(&mut [0; 4]) {
        Ok(0) => Ok(()),
        Ok(n) => Err(failed(format_args!("{n} bytes from nowhere"))),
        Err(e) if e.kind() == ErrorKind::ConnectionReset => Ok(()),
        Err(e) => Err(failed(format_args!("the client was not told: {e}"))),
    }
}
