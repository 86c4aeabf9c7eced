//! Echo server: sends back every byte that arrives by TCP and every datagram that arrives by UDP.
//!
//! One thread and one `mio` poll serve all connections. A connection holds at most [`CHUNK`] bytes:
//! it reads nothing more until all of them are sent back, so a client that does not read slows down
//! only itself. After the client's end of stream it sends the rest, then closes the connection.
//!
//! `echo [TCP-PORT [UDP-PORT]]`; both are 7777 unless given, and the UDP port follows the TCP port.

mod tcp;
mod udp;

use mio::net::{TcpListener, UdpSocket};
use mio::{Events, Interest, Poll, Token};
use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use tcp::{Connection, State};

/// Size of the one buffer a connection has; no UDP datagram is larger.
const CHUNK: usize = 64 * 1024;
const LISTENER: Token = Token(0);
const UDP: Token = Token(1);
const DEFAULT_PORT: u16 = 7777;

fn main() -> ExitCode {
    match ports(std::env::args().skip(1)).map_err(|e| (2, e)).and_then(|(tcp, udp)| {
        serve(tcp, udp).map_err(|e| (1, format!("serving TCP port {tcp}, UDP port {udp}: {e}")))
    }) {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, text)) => {
            eprintln!("echo: {text}");
            ExitCode::from(code)
        }
    }
}

fn ports(mut args: impl Iterator<Item = String>) -> Result<(u16, u16), String> {
    let mut port = |default| match args.next() {
        None => Ok(default),
        Some(word) => word
            .parse()
            .map_err(|_| format!("`{word}` is not a port; usage: echo [TCP-PORT [UDP-PORT]]")),
    };
    let tcp = port(DEFAULT_PORT)?;
    Ok((tcp, port(tcp)?))
}

fn serve(tcp_port: u16, udp_port: u16) -> io::Result<()> {
    let any = |port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let mut poll = Poll::new()?;
    let mut listener = TcpListener::bind(any(tcp_port))?;
    let mut udp = UdpSocket::bind(any(udp_port))?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    poll.registry().register(&mut udp, UDP, Interest::READABLE)?;
    println!("echo: TCP on {}, UDP on {}", listener.local_addr()?, udp.local_addr()?);

    let mut events = Events::with_capacity(256);
    let mut connections: HashMap<Token, Connection> = HashMap::new();
    let mut next = UDP.0 + 1;
    let mut buffer = vec![0; CHUNK];
    loop {
        match poll.poll(&mut events, None) {
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            other => other?,
        }
        for event in &events {
            match event.token() {
                LISTENER => accept(&listener, &poll, &mut connections, &mut next),
                UDP => udp::echo(&udp, &mut buffer)?,
                token => {
                    let Some(connection) = connections.get_mut(&token) else { continue };
                    if let State::Closed = connection.pump(poll.registry(), token, &mut buffer) {
                        connections.remove(&token);
                    }
                }
            }
        }
    }
}

/// Accepts every waiting connection. One that is gone before it is accepted is no reason to stop.
fn accept(
    listener: &TcpListener,
    poll: &Poll,
    connections: &mut HashMap<Token, Connection>,
    next: &mut usize,
) {
    loop {
        let mut stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(e) if e.kind() == ErrorKind::WouldBlock => return,
            Err(e) if matches!(e.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) => {
                continue;
            }
            Err(e) => {
                // Out of descriptors or memory: existing connections continue.
                eprintln!("echo: a connection could not be accepted: {e}");
                return;
            }
        };
        let token = Token(*next);
        *next += 1;
        let ready = stream
            .set_nodelay(true)
            .and_then(|()| poll.registry().register(&mut stream, token, Interest::READABLE));
        match ready {
            Ok(()) => {
                connections.insert(token, Connection::new(stream));
            }
            Err(e) => eprintln!("echo: a connection was dropped: {e}"),
        }
    }
}
