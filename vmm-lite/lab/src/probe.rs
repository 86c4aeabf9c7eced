//! A redis client that times every request and checks every answer.
//!
//! It keeps one connection and increments one counter, one request at a time. It notices everything
//! that a move must not cause: a counter that jumps or stays (a write lost or doubled), an error, a
//! reconnect, a TCP retransmission.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    os::fd::AsRawFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{
    error::{Doing, Error, Result},
    net::Namespace,
};

/// One request.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// When it was sent, in ns since the probe began.
    pub at_ns: u64,
    /// Time until its answer arrived, in ns.
    pub latency_ns: u64,
}

/// A probe's measurements.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Every request, in order.
    pub samples: Vec<Sample>,
    /// Answers that were errors or wrong numbers, or were missing; the first of them as text.
    pub errors: Vec<String>,
    /// Number of reconnects.
    pub reconnects: u64,
    /// Segments that this client's TCP retransmitted (`tcpi_total_retrans`).
    pub retransmissions: u64,
    /// The counter at the end.
    pub counter: i64,
}

/// A probe that runs on a thread of its own.
#[derive(Debug)]
pub struct Probe {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Seen>,
    /// When it began: the zero of [`Sample::at_ns`].
    pub began: Instant,
}

/// How long an answer may take before the probe closes the connection.
const TIMEOUT: Duration = crate::vmm::TIMEOUT;

impl Probe {
    /// Connects from `ns` and begins; waits for `pause` between an answer and the next request.
    ///
    /// # Errors
    /// If the first connection cannot be made.
    pub fn start(ns: &Namespace, server: SocketAddr, key: &str, pause: Duration) -> Result<Self> {
        let connection = ns
            .enter(move || Connection::open(server))?
            .doing(format!("connect to the key-value store at {server}"))?;
        let stop = Arc::new(AtomicBool::new(false));
        let began = Instant::now();
        let mut work = Work {
            ns: ns.clone(),
            server,
            connection,
            key: key.to_owned(),
            seen: Seen::default(),
            began,
        };
        work.connection.request(&format!("DEL {key}\r\n")).doing("clear the probe's counter")?;
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                work.one();
                if !pause.is_zero() {
                    // Not a wait for an event: the rate of the load.
                    thread::sleep(pause);
                }
            }
            work.seen.retransmissions += work.connection.retransmissions();
            work.seen
        });
        Ok(Self { stop, thread, began })
    }

    /// Ends it and returns its measurements.
    ///
    /// # Panics
    /// If the probe itself did.
    #[must_use]
    pub fn stop(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the probe does not panic")
    }
}

struct Work {
    ns: Namespace,
    server: SocketAddr,
    connection: Connection,
    key: String,
    seen: Seen,
    began: Instant,
}

impl Work {
    fn one(&mut self) {
        let sent = Instant::now();
        let answer = self.connection.request(&format!("INCR {}\r\n", self.key));
        let latency_ns = sent.elapsed().as_nanos() as u64;
        self.seen.samples.push(Sample { at_ns: (sent - self.began).as_nanos() as u64, latency_ns });
        match answer {
            Ok(line) => {
                let expected = self.seen.counter + 1;
                match line.strip_prefix(':').and_then(|n| n.parse::<i64>().ok()) {
                    Some(n) => {
                        if n != expected {
                            self.seen.errors.push(format!("the counter is {n}, not {expected}"));
                        }
                        self.seen.counter = n;
                    }
                    None => self.seen.errors.push(format!("answered {line:?} to INCR")),
                }
            }
            Err(e) => {
                self.seen.errors.push(format!("no answer to INCR: {e}"));
                self.reconnect();
            }
        }
    }

    fn reconnect(&mut self) {
        self.seen.reconnects += 1;
        self.seen.retransmissions += self.connection.retransmissions();
        let server = self.server;
        match self.ns.enter(move || Connection::open(server)) {
            Ok(Ok(connection)) => self.connection = connection,
            Ok(Err(e)) => self.seen.errors.push(format!("cannot connect again: {e}")),
            Err(e) => self.seen.errors.push(e.to_string()),
        }
    }
}

/// One RESP connection, one request at a time, answers of one line.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    /// Connects from the calling thread's namespace.
    ///
    /// # Errors
    /// As `TcpStream::connect_timeout`.
    pub fn open(server: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect_timeout(&server, TIMEOUT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        Ok(Self { stream, buffer: Vec::with_capacity(512) })
    }

    /// Connects from `ns`, waiting up to `within` for the server to listen.
    ///
    /// # Errors
    /// [`Error::Timeout`] if it does not.
    pub fn open_when_up(ns: &Namespace, server: SocketAddr, within: Duration) -> Result<Self> {
        ns.enter(move || {
            let deadline = Instant::now() + within;
            loop {
                match Self::open(server) {
                    Ok(connection) => return Ok(connection),
                    Err(_) if Instant::now() < deadline => thread::sleep(Duration::from_millis(5)),
                    Err(e) => {
                        return Err(Error::Timeout {
                            what: format!("listener at {server}"),
                            seconds: within.as_secs(),
                            output: e.to_string(),
                        });
                    }
                }
            }
        })?
    }

    /// Sends an inline command (with its CR LF) and returns the first line of the answer without CR
    /// LF.
    ///
    /// # Errors
    /// As reading and writing the socket; an unexpected end is `UnexpectedEof`.
    pub fn request(&mut self, command: &str) -> std::io::Result<String> {
        self.stream.write_all(command.as_bytes())?;
        self.read_line()
    }

    /// Sends an inline command whose answer is a bulk string and returns that string, `None` for
    /// null.
    ///
    /// # Errors
    /// As [`Self::request`]; an answer of another kind is `InvalidData`.
    pub fn bulk(&mut self, command: &str) -> std::io::Result<Option<String>> {
        let invalid =
            |line: &str| std::io::Error::new(std::io::ErrorKind::InvalidData, line.to_owned());
        let head = self.request(command)?;
        let length = head
            .strip_prefix('$')
            .and_then(|n| n.parse::<i64>().ok())
            .ok_or_else(|| invalid(&head))?;
        let Ok(length) = usize::try_from(length) else { return Ok(None) };
        while self.buffer.len() < length + 2 {
            self.fill()?;
        }
        let body: Vec<u8> = self.buffer.drain(..length + 2).take(length).collect();
        String::from_utf8(body).map(Some).map_err(|e| invalid(&e.to_string()))
    }

    /// Segments retransmitted so far.
    #[must_use]
    pub fn retransmissions(&self) -> u64 {
        // SAFETY: all fields of `tcp_info` are integers, for which zero is a valid value.
        let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
        let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
        // SAFETY: `info` and `length` are writable, and `length` is the size of `info`.
        let done = unsafe {
            libc::getsockopt(
                self.stream.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                (&raw mut info).cast(),
                &raw mut length,
            )
        };
        if done == 0 { u64::from(info.tcpi_total_retrans) } else { 0 }
    }

    fn read_line(&mut self) -> std::io::Result<String> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|w| w == b"\r\n") {
                let line = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
                self.buffer.drain(..end + 2);
                return Ok(line);
            }
            self.fill()?;
        }
    }

    fn fill(&mut self) -> std::io::Result<()> {
        let mut chunk = [0; 4096];
        let n = self.stream.read(&mut chunk)?;
        if n == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        self.buffer.extend_from_slice(&chunk[..n]);
        Ok(())
    }
}
