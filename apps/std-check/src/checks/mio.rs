//! Readiness as the mio crate reports it: the base of event loops, besides std.

use super::tcp::noise;
use crate::check::{Failure, Outcome, failed, join};
use crate::{checks, ensure, ensure_eq, ensure_error};
use mio::event::{Event, Source};
use mio::net::{TcpListener, TcpStream, UdpSocket};
use mio::{Events, Interest, Poll, Token, Waker};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

checks!["mio": timeout, wakes_at_once, waker, waker_from_before, accept_and_read, connect, refused,
    write_becomes_possible,
    end_of_stream, silence_after_deregistering, udp, many_at_once];

const A: Token = Token(1);
const B: Token = Token(2);
const TIMEOUT: Duration = Duration::from_secs(60);

/// A poll, and the events so far.
struct Loop {
    poll: Poll,
    events: Events,
}

impl Loop {
    fn new() -> Result<Self, Failure> {
        Ok(Self { poll: Poll::new()?, events: Events::with_capacity(64) })
    }

    fn register(&self, source: &mut impl Source, token: Token, interest: Interest) -> Outcome {
        Ok(self.poll.registry().register(source, token, interest)?)
    }

    /// Polls until an event of `token` satisfies `wanted`.
    fn until(&mut self, token: Token, wanted: impl Fn(&Event) -> bool) -> Outcome {
        let start = Instant::now();
        loop {
            let left = TIMEOUT.checked_sub(start.elapsed());
            let left = left.ok_or_else(|| failed("the event did not come"))?;
            self.poll.poll(&mut self.events, Some(left))?;
            if self.events.iter().any(|event| event.token() == token && wanted(event)) {
                return Ok(());
            }
        }
    }

    /// Checks that no event arrives for `time`.
    fn quiet_for(&mut self, time: Duration) -> Outcome {
        self.poll.poll(&mut self.events, Some(time))?;
        let event = self.events.iter().next();
        ensure!(event.is_none(), "an unexpected event: {event:?}");
        Ok(())
    }
}

fn listen() -> Result<(TcpListener, SocketAddr), Failure> {
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Two connected streams, not registered.
fn pair() -> Result<(TcpStream, TcpStream), Failure> {
    let (client, server) = super::tcp::pair()?;
    client.set_nonblocking(true)?;
    server.set_nonblocking(true)?;
    Ok((TcpStream::from_std(client), TcpStream::from_std(server)))
}

/// Reads until it would block or is at the end. Returns which.
fn drain(stream: &mut TcpStream, into: &mut Vec<u8>) -> Result<bool, Failure> {
    let mut buffer = vec![0; 16 << 10];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(true),
            Ok(n) => into.extend(&buffer[..n]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error.into()),
        }
    }
}

fn timeout() -> Outcome {
    let mut events = Loop::new()?;
    for ms in [0, 1, 25] {
        let start = Instant::now();
        events.quiet_for(Duration::from_millis(ms))?;
        let took = start.elapsed();
        ensure!(
            took.as_millis() >= ms.into() && took < Duration::from_secs(60),
            "{ms} ms lasted {took:?}"
        );
    }
    Ok(())
}

fn wakes_at_once() -> Outcome {
    // A poll with a long timeout ends when something happens.
    let mut events = Loop::new()?;
    let (mut client, mut server) = pair()?;
    events.register(&mut server, A, Interest::READABLE)?;
    let start = Instant::now();
    let writer = thread::spawn(move || {
        thread::sleep(Duration::from_millis(20));
        client.write_all(b"now").map(|()| client)
    });
    events.until(A, Event::is_readable)?;
    let took = start.elapsed();
    ensure!((20..60_000).contains(&took.as_millis()), "20 ms lasted {took:?}");
    let _client = join(writer)??;
    ensure_eq!(server.read(&mut [0; 8])?, 3);
    Ok(())
}

fn waker() -> Outcome {
    let mut events = Loop::new()?;
    let waker = Arc::new(Waker::new(events.poll.registry(), A)?);
    for _ in 0..20 {
        let waker = Arc::clone(&waker);
        let thread = thread::spawn(move || {
            thread::sleep(Duration::from_millis(1));
            waker.wake()
        });
        events.until(A, Event::is_readable)?;
        join(thread)??;
    }
    events.quiet_for(Duration::from_millis(5))
}

fn waker_from_before() -> Outcome {
    // A wake before the poll is not lost, and several count as one.
    let mut events = Loop::new()?;
    let waker = Waker::new(events.poll.registry(), A)?;
    (0..1000).try_for_each(|_| waker.wake())?;
    events.until(A, Event::is_readable)?;
    events.quiet_for(Duration::from_millis(5))
}

fn accept_and_read() -> Outcome {
    let mut events = Loop::new()?;
    let (mut listener, address) = listen()?;
    events.register(&mut listener, A, Interest::READABLE)?;
    events.quiet_for(Duration::from_millis(5))?;
    let mut client = std::net::TcpStream::connect(address)?;
    events.until(A, Event::is_readable)?;
    let (mut server, peer) = listener.accept()?;
    ensure_eq!(peer, client.local_addr()?);
    ensure_error!(listener.accept(), WouldBlock);
    events.register(&mut server, B, Interest::READABLE)?;
    ensure_error!(server.read(&mut [0; 4]), WouldBlock);
    for n in 0..50u8 {
        client.write_all(&[n; 3])?;
        let mut got = Vec::new();
        while got.len() < 3 {
            events.until(B, Event::is_readable)?;
            drain(&mut server, &mut got)?;
        }
        ensure_eq!(got, [n; 3]);
    }
    Ok(())
}

fn connect() -> Outcome {
    let mut events = Loop::new()?;
    let (listener, address) = listen()?;
    let mut client = TcpStream::connect(address)?;
    events.register(&mut client, A, Interest::WRITABLE)?;
    events.until(A, Event::is_writable)?;
    ensure!(client.take_error()?.is_none(), "the connection has an error");
    ensure_eq!(client.peer_addr()?, address);
    drop(listener);
    Ok(())
}

fn refused() -> Outcome {
    let mut events = Loop::new()?;
    let (listener, address) = listen()?;
    drop(listener);
    // It may be known at once, or only after the answer has arrived.
    let mut client = match TcpStream::connect(address) {
        Ok(client) => client,
        Err(error) => {
            ensure_eq!(error.kind(), ErrorKind::ConnectionRefused);
            return Ok(());
        }
    };
    events.register(&mut client, A, Interest::READABLE | Interest::WRITABLE)?;
    events.until(A, |event| event.is_writable() || event.is_error())?;
    let error = client.take_error()?.ok_or_else(|| failed("it is not known that it failed"))?;
    ensure_eq!(error.kind(), ErrorKind::ConnectionRefused);
    Ok(())
}

fn write_becomes_possible() -> Outcome {
    let mut events = Loop::new()?;
    let (mut client, mut server) = pair()?;
    events.register(&mut client, A, Interest::WRITABLE)?;
    events.register(&mut server, B, Interest::READABLE)?;
    let sent = noise(2_000_000);
    let mut left = &sent[..];
    let mut received = Vec::new();
    // Fills up first, then both ends continue by the poll's events.
    let mut fill = |left: &mut &[u8]| -> Outcome {
        while !left.is_empty() {
            match client.write(left) {
                Ok(n) => *left = &left[n..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    };
    fill(&mut left)?;
    let start = Instant::now();
    while received.len() < sent.len() {
        ensure!(start.elapsed() < TIMEOUT, "{} of {} arrived", received.len(), sent.len());
        events.poll.poll(&mut events.events, Some(TIMEOUT))?;
        for event in &events.events {
            match event.token() {
                A => fill(&mut left)?,
                _ => drop(drain(&mut server, &mut received)?),
            }
        }
    }
    ensure!(received == sent, "other bytes arrived");
    Ok(())
}

fn end_of_stream() -> Outcome {
    let mut events = Loop::new()?;
    let (mut client, mut server) = pair()?;
    events.register(&mut server, A, Interest::READABLE)?;
    client.write_all(b"the last words")?;
    client.shutdown(Shutdown::Write)?;
    let mut got = Vec::new();
    loop {
        events.until(A, |event| event.is_readable() || event.is_read_closed())?;
        if drain(&mut server, &mut got)? {
            break;
        }
    }
    ensure_eq!(got, b"the last words");
    Ok(())
}

fn silence_after_deregistering() -> Outcome {
    let mut events = Loop::new()?;
    let (mut client, mut server) = pair()?;
    events.register(&mut server, A, Interest::READABLE)?;
    client.write_all(b"x")?;
    events.until(A, Event::is_readable)?;
    events.poll.registry().deregister(&mut server)?;
    client.write_all(b"y")?;
    events.quiet_for(Duration::from_millis(10))?;
    // Registered again, it reports what is already there.
    events.register(&mut server, B, Interest::READABLE)?;
    events.until(B, Event::is_readable)?;
    drop(server);
    events.quiet_for(Duration::from_millis(10))
}

fn udp() -> Outcome {
    let mut events = Loop::new()?;
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let (sender, mut receiver) = (UdpSocket::bind(any)?, UdpSocket::bind(any)?);
    events.register(&mut receiver, A, Interest::READABLE)?;
    let mut buffer = [0; 16];
    for n in 0..20u8 {
        ensure_error!(receiver.recv_from(&mut buffer), WouldBlock);
        sender.send_to(&[n; 5], receiver.local_addr()?)?;
        events.until(A, Event::is_readable)?;
        ensure_eq!(receiver.recv_from(&mut buffer)?, (5, sender.local_addr()?));
        ensure_eq!(buffer[..5], [n; 5]);
    }
    Ok(())
}

fn many_at_once() -> Outcome {
    const COUNT: usize = 100;
    let mut events = Loop::new()?;
    let mut pairs = Vec::new();
    for n in 0..COUNT {
        let (client, mut server) = pair()?;
        events.register(&mut server, Token(n), Interest::READABLE)?;
        pairs.push((client, server));
    }
    for (n, (client, _)) in (0u8..).zip(&mut pairs) {
        client.write_all(&[n])?;
    }
    let mut seen = [false; COUNT];
    let start = Instant::now();
    while seen.contains(&false) {
        ensure!(start.elapsed() < TIMEOUT, "some never became ready: {seen:?}");
        events.poll.poll(&mut events.events, Some(TIMEOUT))?;
        for event in &events.events {
            let Token(n) = event.token();
            let mut got = Vec::new();
            drain(&mut pairs[n].1, &mut got)?;
            seen[n] |= got == [n as u8];
        }
    }
    Ok(())
}
