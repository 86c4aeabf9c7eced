//! The clients of the load: each has one write in flight at any time, on a connection of its own.
//!
//! One thread serves all of them, as in redis-benchmark. It is the same for every system; only the
//! clients of a server that must be asked for its replica ask, with the write, in one packet.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::SocketAddr,
    time::{Duration, Instant},
};

use mio::{Events, Interest, Poll, Token, net::TcpStream};
use serde::Serialize;
use vmm_lite_lab::{
    Result,
    error::Doing,
    net::Namespace,
    stats::{Summary, summary},
    vmm::TIMEOUT,
};

/// Number of different keys, as with `redis-benchmark -r 10000`.
const KEYS: u32 = 10_000;
/// After the write: wait until a replica has it, without a limit of time.
const WAIT: &[u8] = b"*3\r\n$4\r\nWAIT\r\n$1\r\n1\r\n$1\r\n0\r\n";

/// What the clients do.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Number of clients.
    pub clients: usize,
    /// Number of writes, all clients together.
    pub requests: u32,
    /// Each write is acknowledged when `WAIT 1 0` after it is.
    pub wait: bool,
}

/// What they saw.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Seen {
    /// Writes acknowledged in a second.
    pub rps: f64,
    /// From sending a write until its acknowledgement arrived, ns.
    pub latency_ns: Summary,
}

struct Client {
    stream: TcpStream,
    sent: Instant,
    /// The part of the answer that has arrived.
    answer: Vec<u8>,
}

impl Load {
    /// Sends all of the writes from `ns` to `server` and waits for the last acknowledgement.
    ///
    /// # Errors
    /// If a connection cannot be made or breaks, or a write is refused.
    pub fn run(self, ns: &Namespace, server: SocketAddr) -> Result<Seen> {
        ns.enter(move || self.send(server))?.doing(format!("write to {server}"))
    }

    fn send(self, server: SocketAddr) -> io::Result<Seen> {
        let (mut poll, mut events) = (Poll::new()?, Events::with_capacity(self.clients));
        let mut clients = Vec::with_capacity(self.clients);
        for number in 0..self.clients {
            // Connected before it is measured, so blocking.
            let stream = std::net::TcpStream::connect_timeout(&server, TIMEOUT)?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            let mut stream = TcpStream::from_std(stream);
            poll.registry().register(&mut stream, Token(number), Interest::READABLE)?;
            clients.push(Client { stream, sent: Instant::now(), answer: Vec::with_capacity(64) });
        }
        let mut latencies = Vec::with_capacity(self.requests as usize);
        let mut left = self.requests;
        let (mut random, began) = (fastrand::Rng::new(), Instant::now());
        for client in clients.iter_mut().take(left as usize) {
            client.write(&mut random, self.wait)?;
            left -= 1;
        }
        while latencies.len() < self.requests as usize {
            match poll.poll(&mut events, Some(TIMEOUT)) {
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                other => other?,
            }
            if events.is_empty() {
                return Err(io::Error::new(ErrorKind::TimedOut, "no answer in time"));
            }
            for event in &events {
                let client = &mut clients[event.token().0];
                if let Some(latency) = client.read(self.wait)? {
                    latencies.push(latency.as_nanos() as u64);
                    if left > 0 {
                        client.write(&mut random, self.wait)?;
                        left -= 1;
                    }
                }
            }
        }
        let rps = f64::from(self.requests) / began.elapsed().as_secs_f64();
        Ok(Seen { rps, latency_ns: summary(&latencies) })
    }
}

impl Client {
    fn write(&mut self, random: &mut fastrand::Rng, wait: bool) -> io::Result<()> {
        let key = random.u32(..KEYS);
        let mut request =
            format!("*3\r\n$3\r\nSET\r\n$16\r\nkey:{key:012}\r\n$3\r\nVXK\r\n").into_bytes();
        if wait {
            request.extend_from_slice(WAIT);
        }
        self.sent = Instant::now();
        // With one request in flight there is always room for it.
        match self.stream.write(&request)? {
            n if n == request.len() => Ok(()),
            _ => Err(ErrorKind::WriteZero.into()),
        }
    }

    /// The time that the write took, once it is acknowledged.
    fn read(&mut self, wait: bool) -> io::Result<Option<Duration>> {
        let mut chunk = [0; 512];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(n) => self.answer.extend_from_slice(&chunk[..n]),
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) => return Err(e),
            }
            let expected: &[u8] = if wait { b"+OK\r\n:1\r\n" } else { b"+OK\r\n" };
            if self.answer == expected {
                self.answer.clear();
                return Ok(Some(self.sent.elapsed()));
            }
            if !expected.starts_with(&self.answer) {
                let said = String::from_utf8_lossy(&self.answer).into_owned();
                return Err(io::Error::new(ErrorKind::InvalidData, said));
            }
        }
        Ok(None)
    }
}
