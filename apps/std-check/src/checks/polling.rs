//! Readiness as the polling crate reports it: the base of smol's crates.

use super::tcp::{listen, pair};
use crate::check::{Failure, Outcome, join};
use crate::{checks, ensure, ensure_eq, ensure_error};
use polling::{AsSource, Event, Events, Poller};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

checks!["polling": timeout, once_until_asked_again, writable, accept, notify, notify_from_before,
    deleted];

const TIMEOUT: Option<Duration> = Some(Duration::from_secs(60));
const BRIEFLY: Option<Duration> = Some(Duration::from_millis(10));

/// Waits once. Returns the keys of what is ready, with whether it can be read and written.
fn wait(poller: &Poller, timeout: Option<Duration>) -> Result<Vec<(usize, bool, bool)>, Failure> {
    let mut events = Events::new();
    poller.wait(&mut events, timeout)?;
    Ok(events.iter().map(|event| (event.key, event.readable, event.writable)).collect())
}

/// Watches a source until the guard is dropped.
struct Watched<'a, S: AsSource> {
    poller: &'a Poller,
    source: &'a S,
}

impl<'a, S: AsSource> Watched<'a, S>
where
    for<'b> &'b S: polling::AsRawSource,
{
    fn new(poller: &'a Poller, source: &'a S, interest: Event) -> Result<Self, Failure> {
        // SAFETY: the guard borrows the source and deletes it from the poller when it is dropped.
        unsafe { poller.add(source, interest)? };
        Ok(Self { poller, source })
    }
}

impl<S: AsSource> Drop for Watched<'_, S> {
    fn drop(&mut self) {
        // The check itself may have deleted it already.
        let _ = self.poller.delete(self.source);
    }
}

fn timeout() -> Outcome {
    let poller = Poller::new()?;
    let start = Instant::now();
    ensure_eq!(wait(&poller, Some(Duration::from_millis(25)))?, []);
    let took = start.elapsed();
    ensure!((25..60_000).contains(&took.as_millis()), "25 ms lasted {took:?}");
    ensure_eq!(wait(&poller, Some(Duration::ZERO))?, []);
    Ok(())
}

fn once_until_asked_again() -> Outcome {
    let poller = Poller::new()?;
    let (mut client, mut server) = pair()?;
    let watched = Watched::new(&poller, &server, Event::readable(7))?;
    ensure_eq!(wait(&poller, BRIEFLY)?, []);
    client.write_all(b"abc")?;
    ensure_eq!(wait(&poller, TIMEOUT)?, [(7, true, false)]);
    ensure_eq!(wait(&poller, BRIEFLY)?, []);
    poller.modify(&server, Event::readable(8))?;
    ensure_eq!(wait(&poller, TIMEOUT)?, [(8, true, false)]);
    drop(watched);
    ensure_eq!(server.read(&mut [0; 8])?, 3);
    Ok(())
}

fn writable() -> Outcome {
    let poller = Poller::new()?;
    let (client, _server) = pair()?;
    let _watched = Watched::new(&poller, &client, Event::all(3))?;
    ensure_eq!(wait(&poller, TIMEOUT)?, [(3, false, true)]);
    Ok(())
}

fn accept() -> Outcome {
    let poller = Poller::new()?;
    let (listener, address) = listen()?;
    listener.set_nonblocking(true)?;
    let _watched = Watched::new(&poller, &listener, Event::readable(1))?;
    let clients =
        thread::spawn(move || (0..10).map(|_| TcpStream::connect(address)).collect::<Vec<_>>());
    let mut accepted = 0;
    while accepted < 10 {
        ensure_eq!(wait(&poller, TIMEOUT)?, [(1, true, false)]);
        while listener.accept().is_ok() {
            accepted += 1;
        }
        poller.modify(&listener, Event::readable(1))?;
    }
    ensure_error!(listener.accept(), WouldBlock);
    for client in join(clients)? {
        client?;
    }
    Ok(())
}

fn notify() -> Outcome {
    let poller = Arc::new(Poller::new()?);
    for _ in 0..20 {
        let other = Arc::clone(&poller);
        let thread = thread::spawn(move || {
            thread::sleep(Duration::from_millis(2));
            other.notify()
        });
        let start = Instant::now();
        ensure_eq!(wait(&poller, TIMEOUT)?, []);
        ensure!(start.elapsed() < Duration::from_secs(60), "it was not woken");
        join(thread)??;
    }
    Ok(())
}

fn notify_from_before() -> Outcome {
    let poller = Poller::new()?;
    (0..10).try_for_each(|_| poller.notify())?;
    let start = Instant::now();
    ensure_eq!(wait(&poller, TIMEOUT)?, []);
    ensure!(start.elapsed() < Duration::from_secs(60), "the notification was lost");
    let start = Instant::now();
    ensure_eq!(wait(&poller, BRIEFLY)?, []);
    ensure!(start.elapsed() >= Duration::from_millis(10), "it woke twice");
    Ok(())
}

fn deleted() -> Outcome {
    let poller = Poller::new()?;
    let (mut client, server) = pair()?;
    let watched = Watched::new(&poller, &server, Event::readable(1))?;
    poller.delete(&server)?;
    client.write_all(b"x")?;
    ensure_eq!(wait(&poller, BRIEFLY)?, []);
    ensure_error!(poller.modify(&server, Event::readable(1)), NotFound);
    drop(watched);
    Ok(())
}
