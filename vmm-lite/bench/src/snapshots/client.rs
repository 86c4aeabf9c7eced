//! A client that is there before the store, and gets its answer as soon as possible.
//!
//! A connection request that is sent before the guest's TAP device carries packets is lost, and TCP
//! repeats it only after a second. Later ones wait in the TAP for the guest, which has to handle
//! all of them. So the client sends one every two milliseconds at first, and then every twenty.

use std::{
    collections::VecDeque,
    io::{ErrorKind, Read, Write},
    net::SocketAddr,
    os::fd::AsRawFd,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use mio::{Events, Interest, Poll, Token, net::TcpStream, unix::SourceFd};
use nix::sys::{
    time::TimeSpec,
    timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags},
};
use vmm_lite_lab::{Error, Result, exec, net::Namespace, vmm::TIMEOUT};

/// How often a request is sent at first …
const TICK: Duration = Duration::from_millis(2);
/// … for this many ticks …
const AT_FIRST: usize = 10;
/// … and after that once in this many ticks.
const THEN: usize = 10;
/// Open requests; the oldest is closed for another.
const KEPT: usize = 100;

/// The client, running on a thread of its own.
pub struct Client(JoinHandle<Result<Duration>>);

impl Client {
    /// Begins to ask the store at `to` for the value of `key`, from `ns`.
    pub fn begin(ns: &Namespace, to: SocketAddr, (key, value): (&str, &str)) -> Self {
        let question = format!("GET {key}\r\n");
        let answer = format!("${}\r\n{value}\r\n", value.len());
        let ns = ns.clone();
        Self(thread::spawn(move || {
            ns.enter(move || {
                ask(to, question.as_bytes(), answer.as_bytes())
                    .map_err(|source| Error::Io { what: format!("ask the store at {to}"), source })
            })?
        }))
    }

    /// Waits for the answer. Returns when it arrived, by the monotonic clock.
    pub fn answered(self) -> Result<Duration> {
        self.0.join().expect("the client does not panic")
    }
}

/// A connection attempt.
struct Attempt {
    token: Token,
    stream: TcpStream,
    asked: bool,
    got: Vec<u8>,
}

fn ask(to: SocketAddr, question: &[u8], answer: &[u8]) -> std::io::Result<Duration> {
    const CLOCK: Token = Token(0);
    let deadline = Instant::now() + TIMEOUT;
    let mut poll = Poll::new()?;
    let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK)?;
    let every = Expiration::Interval(TimeSpec::from_duration(TICK));
    timer.set(every, TimerSetTimeFlags::empty())?;
    let clock = std::os::fd::AsFd::as_fd(&timer).as_raw_fd();
    poll.registry().register(&mut SourceFd(&clock), CLOCK, Interest::READABLE)?;
    let mut events = Events::with_capacity(2 * KEPT);
    let mut attempts: VecDeque<Attempt> = VecDeque::new();
    let mut ticks = 0;
    while Instant::now() < deadline {
        poll.poll(&mut events, Some(TIMEOUT))?;
        for event in &events {
            if event.token() == CLOCK {
                // The number of expirations does not matter: missed ticks are not made up for.
                timer.wait()?;
                ticks += 1;
                if ticks > AT_FIRST && ticks % THEN != 0 {
                    continue;
                }
                let mut stream = TcpStream::connect(to)?;
                let (token, both) = (Token(ticks), Interest::READABLE | Interest::WRITABLE);
                poll.registry().register(&mut stream, token, both)?;
                attempts.push_back(Attempt { token, stream, asked: false, got: Vec::new() });
                if attempts.len() > KEPT {
                    attempts.pop_front();
                }
                continue;
            }
            let Some(at) = attempts.iter().position(|a| a.token == event.token()) else { continue };
            match attempts[at].go_on(question) {
                Ok(()) if attempts[at].got == answer => return Ok(exec::monotonic()),
                Ok(()) if answer.starts_with(&attempts[at].got) => {}
                Ok(()) => {
                    let said = String::from_utf8_lossy(&attempts[at].got).into_owned();
                    return Err(std::io::Error::new(ErrorKind::InvalidData, said));
                }
                // Refused, or reset: another attempt follows.
                Err(_) => drop(attempts.remove(at)),
            }
        }
    }
    Err(ErrorKind::TimedOut.into())
}

impl Attempt {
    /// Sends the request once it can, and reads what has arrived.
    fn go_on(&mut self, question: &[u8]) -> std::io::Result<()> {
        if let Some(e) = self.stream.take_error()? {
            return Err(e);
        }
        if !self.asked {
            match self.stream.peer_addr() {
                Err(e) if e.kind() == ErrorKind::NotConnected => return Ok(()),
                Err(e) => return Err(e),
                Ok(_) => {}
            }
            self.stream.write_all(question)?;
            self.asked = true;
        }
        let mut room = [0; 512];
        loop {
            match self.stream.read(&mut room) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(n) => self.got.extend_from_slice(&room[..n]),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e),
            }
        }
    }
}
