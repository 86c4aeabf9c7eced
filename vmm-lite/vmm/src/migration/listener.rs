//! Admission control: which peers are admitted, and how many.
//!
//! Each connection has its own thread. A peer is unauthenticated until it has introduced itself and
//! sent its request: the number of such peers is limited, each has a few seconds in total, however
//! it uses them, and gets little memory. If one exceeds the limit, the listener evicts the oldest
//! of those from the address that has most: so unauthenticated peers evict each other, and a
//! trusted host needs milliseconds to authenticate.

mod log;
mod service;

pub use service::Service;

use super::{
    Error,
    connection::Transport,
    destination::stage::{Stage, narrow},
    timeout,
    tls::Credentials,
};
use crate::host::poll::{Watch, wait_any};
use crate::{
    host::confine::{self, Thread},
    host::watchdog::{self, Doing},
    identity::IdentityDir,
};
use log::Log;
use std::{
    collections::HashMap,
    io::{self, Read},
    net::{IpAddr, Shutdown, TcpListener, TcpStream},
    os::fd::AsRawFd,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

/// Connections that the kernel queues until they are accepted. A flood fills the usual 128 between
/// two passes on a busy host, and a peer that is refused tries again a second later.
const BACKLOG: i32 = 1024;
/// Limit for unauthenticated peers.
const UNAUTHENTICATED_MAX: usize = 64;
/// Limit for authenticated peers.
const SESSIONS_MAX: usize = 16;
/// How long a peer may stay unauthenticated.
const AUTHENTICATION: Duration = Duration::from_secs(5);
/// Limit for what is read from a peer that is being refused, so that it can read why.
const LINGER_BYTES: usize = 256 << 10;
const LINGER: Duration = Duration::from_secs(1);
/// How long to stop accepting when the host has no resources left for a connection.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// Which peers are accepted.
#[derive(Debug)]
pub enum AccessPolicy {
    /// Any peer.
    Plaintext,
    /// The hosts that the directory trusts at that time; without a directory, those trusted at the
    /// start.
    Tls(Option<IdentityDir>, Mutex<Credentials>),
}

impl AccessPolicy {
    /// A policy for trusted hosts: those of `dir` at the time of each connection, or without it
    /// those of `credentials`.
    #[must_use]
    pub fn tls(credentials: Credentials, dir: Option<IdentityDir>) -> Self {
        Self::Tls(dir, Mutex::new(credentials))
    }

    /// The transport of the next connection. Trusted hosts are read anew while `fresh` is set; a
    /// directory that is invalid now admits no host.
    fn transport(&self, fresh: bool) -> Result<Transport, Error> {
        let Self::Tls(dir, known) = self else { return Ok(Transport::Plaintext) };
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(dir) = dir
            && fresh
        {
            known.trusted = Arc::new(dir.trusted()?);
        }
        Ok(Transport::Tls(known.clone()))
    }
}

/// An unauthenticated peer.
#[derive(Debug)]
struct Unauthenticated {
    number: u64,
    address: Option<IpAddr>,
    since: Instant,
    stream: Arc<TcpStream>,
    evicted: Arc<AtomicBool>,
}

#[derive(Debug, Default)]
struct Sessions {
    next: u64,
    /// Oldest first.
    unauthenticated: Vec<Unauthenticated>,
    known: usize,
}

/// All sessions.
#[derive(Debug, Default)]
struct Admission {
    sessions: Mutex<Sessions>,
    gone: Condvar,
    log: Mutex<Log>,
}

impl Admission {
    fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Admits a peer; evicts another if need be.
    fn enter(self: &Arc<Self>, stream: &Arc<TcpStream>, address: Option<IpAddr>) -> Session {
        let mut sessions = self.sessions();
        if sessions.unauthenticated.len() >= UNAUTHENTICATED_MAX
            && let Some(at) = which_to_evict(sessions.unauthenticated.iter().map(|s| s.address))
        {
            evict(sessions.unauthenticated.remove(at));
        }
        let number = sessions.next;
        sessions.next += 1;
        let evicted = Arc::new(AtomicBool::new(false));
        sessions.unauthenticated.push(Unauthenticated {
            number,
            address,
            since: Instant::now(),
            stream: Arc::clone(stream),
            evicted: Arc::clone(&evicted),
        });
        Session { admission: Arc::clone(self), number, known: false, evicted }
    }

    /// Evicts peers that have been unauthenticated for too long; returns the time until the next is
    /// due.
    fn evict_overdue(&self) -> Option<Duration> {
        let mut sessions = self.sessions();
        while let Some(oldest) = sessions.unauthenticated.first() {
            let left = timeout(AUTHENTICATION).saturating_sub(oldest.since.elapsed());
            if !left.is_zero() {
                return Some(left);
            }
            evict(sessions.unauthenticated.remove(0));
        }
        None
    }

    /// Evicts all unauthenticated peers.
    fn empty(&self) {
        self.sessions().unauthenticated.drain(..).for_each(evict);
    }
}

/// Which of the unauthenticated peers is evicted: the oldest from the address that has most.
fn which_to_evict(addresses: impl Iterator<Item = Option<IpAddr>>) -> Option<usize> {
    let addresses: Vec<_> = addresses.collect();
    let mut count = HashMap::<_, usize>::new();
    for address in &addresses {
        *count.entry(address).or_default() += 1;
    }
    let most = count.values().max()?;
    addresses.iter().position(|address| count.get(address) == Some(most))
}

fn evict(peer: Unauthenticated) {
    peer.evicted.store(true, SeqCst);
    // Its thread sees the end of the connection. A connection that has ended ignores it.
    let _ = peer.stream.shutdown(Shutdown::Both);
}

/// An admitted connection.
#[derive(Debug)]
pub struct Session {
    admission: Arc<Admission>,
    number: u64,
    known: bool,
    evicted: Arc<AtomicBool>,
}

impl Session {
    /// The peer is authenticated. `false`: there is no room for another authenticated peer.
    #[must_use]
    pub fn known(&mut self) -> bool {
        let mut sessions = self.admission.sessions();
        if sessions.known >= SESSIONS_MAX {
            return false;
        }
        sessions.unauthenticated.retain(|s| s.number != self.number);
        sessions.known += 1;
        self.known = true;
        true
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let mut sessions = self.admission.sessions();
        sessions.unauthenticated.retain(|s| s.number != self.number);
        sessions.known -= usize::from(self.known);
        drop(sessions);
        self.admission.gone.notify_one();
    }
}

/// Serves connections until no source needs an answer: one may ask later about the outcome for its
/// VM, until it has confirmed that it knows.
///
/// # Errors
/// If the host refuses a thread.
pub fn serve<S: Service>(
    listener: TcpListener,
    service: Arc<S>,
    policy: AccessPolicy,
) -> io::Result<()> {
    nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(BACKLOG)?)?;
    // The peer may have disconnected between poll and accept.
    listener.set_nonblocking(true)?;
    let admission = Arc::new(Admission::default());
    let policy = Arc::new(policy);
    let accept = move || {
        if let Err(e) = confine::enter(Thread::Accept) {
            tracing::error!("nothing is received: {}", crate::host::with_causes(&e));
            return;
        }
        let _attends = watchdog::attend(Thread::Accept.name());
        let mut stage = Stage::Open;
        loop {
            let timeout = admission.evict_overdue().unwrap_or_else(|| timeout(AUTHENTICATION));
            let watched = [listener.as_raw_fd(), service.stages().fd()].map(Watch::Readable);
            let came = wait_any(watched, timeout);
            let _owes = watchdog::owe(Doing::AcceptHosts);
            match service.stages().take() {
                Stage::Over => return admission.empty(),
                Stage::Arrived if stage == Stage::Open => {
                    stage = Stage::Arrived;
                    if !narrow() {
                        return admission.empty();
                    }
                }
                Stage::Open | Stage::Arrived => {}
            }
            match came.and_then(|_| listener.accept()) {
                Ok((stream, address)) => {
                    let address = Some(address.ip());
                    if let Err(e) = meet(stream, address, stage, &admission, &service, &policy) {
                        say(&admission, address, &e.to_string());
                    }
                }
                Err(e)
                    if matches!(
                        e.kind(),
                        io::ErrorKind::WouldBlock
                            | io::ErrorKind::ConnectionAborted
                            | io::ErrorKind::Interrupted
                    ) => {}
                Err(e) => {
                    say(&admission, None, &e.to_string());
                    // Out of descriptors or memory: evict a peer first.
                    let sessions = admission.sessions();
                    drop(admission.gone.wait_timeout(sessions, EXHAUSTED));
                }
            }
        }
    };
    std::thread::Builder::new().name(Thread::Accept.name().into()).spawn(accept).map(drop)
}

fn say(admission: &Admission, address: Option<IpAddr>, why: &str) {
    admission.log.lock().unwrap_or_else(PoisonError::into_inner).say(address, why);
}

/// Serves one connection on a thread of its own.
fn meet<S: Service>(
    stream: TcpStream,
    address: Option<IpAddr>,
    stage: Stage,
    admission: &Arc<Admission>,
    service: &Arc<S>,
    policy: &Arc<AccessPolicy>,
) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    let stream = Arc::new(stream);
    let mut session = admission.enter(&stream, address);
    let (service, policy) = (Arc::clone(service), Arc::clone(policy));
    let serve = move || {
        let kind = match stage {
            Stage::Open => Thread::Receive,
            Stage::Arrived | Stage::Over => Thread::Arrived,
        };
        if let Err(e) = confine::enter(kind) {
            return say(&session.admission, address, &crate::host::with_causes(&e));
        }
        // A process that has become a VM may have given up the right to read; a peer that asks then
        // was admitted before.
        let served = policy
            .transport(!service.taken())
            .and_then(|transport| service.serve(Arc::clone(&stream), &transport, &mut session));
        let Err(e) = served else { return };
        let why = if session.evicted.load(SeqCst) {
            "it did not authenticate in time, or too many others connected".into()
        } else {
            crate::host::with_causes(&e)
        };
        say(&session.admission, address, &why);
        linger(&stream);
    };
    std::thread::Builder::new().name(Thread::Receive.name().into()).spawn(serve).map(drop)
}

/// Reads for a short time: closing with unread data would discard what was last sent to the peer.
fn linger(stream: &TcpStream) {
    if stream.shutdown(Shutdown::Write).is_err() || stream.set_read_timeout(Some(LINGER)).is_err() {
        return;
    }
    let (mut buffer, mut read) = ([0; 4096], 0);
    while read < LINGER_BYTES {
        match (&mut &*stream).read(&mut buffer) {
            Ok(n @ 1..) => read += n,
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn from(last: u8) -> Option<IpAddr> {
        Some(Ipv4Addr::new(10, 0, 0, last).into())
    }

    fn pair(listener: &TcpListener) -> (TcpStream, Arc<TcpStream>) {
        let there = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (there, Arc::new(listener.accept().unwrap().0))
    }

    fn closed(stream: &TcpStream) -> bool {
        stream.set_nonblocking(true).unwrap();
        matches!((&mut &*stream).read(&mut [0]), Ok(0))
    }

    #[test]
    fn the_oldest_peer_of_the_most_frequent_address_is_evicted() {
        let go = |addresses: &[u8]| which_to_evict(addresses.iter().map(|&last| from(last)));
        assert_eq!(go(&[1, 2, 2, 3]), Some(1));
        assert_eq!(go(&[1, 2, 3]), Some(0));
        assert_eq!(go(&[2, 1, 1, 1, 2]), Some(1));
        assert_eq!(go(&[]), None);
    }

    #[test]
    fn unauthenticated_peers_evict_only_each_other() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let admission = Arc::new(Admission::default());
        let (known_there, known) = pair(&listener);
        let mut known_place = admission.enter(&known, from(9));
        assert!(known_place.known());
        let (lonely_there, lonely) = pair(&listener);
        let _lonely = admission.enter(&lonely, from(1));
        let many: Vec<_> = (0..UNAUTHENTICATED_MAX + 10)
            .map(|_| {
                let (there, here) = pair(&listener);
                let session = admission.enter(&here, from(2));
                (there, session)
            })
            .collect();
        assert_eq!(admission.sessions().unauthenticated.len(), UNAUTHENTICATED_MAX);
        let evicted =
            many.iter().filter(|(there, session)| closed(there) && session.evicted.load(SeqCst));
        assert_eq!(evicted.count(), 11);
        assert!(!closed(&known_there) && !closed(&lonely_there));
        drop((many, known_place));
        let sessions = admission.sessions();
        assert_eq!((sessions.unauthenticated.len(), sessions.known), (1, 0));
    }

    #[test]
    fn authenticated_peers_are_limited() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let admission = Arc::new(Admission::default());
        let mut places: Vec<_> =
            (0..=SESSIONS_MAX).map(|_| admission.enter(&pair(&listener).1, from(1))).collect();
        let known: Vec<_> = places.iter_mut().map(Session::known).collect();
        assert!(known[..SESSIONS_MAX].iter().all(|k| *k) && !known[SESSIONS_MAX]);
        drop(places.swap_remove(0));
        assert!(places.last_mut().is_some_and(|_| admission.sessions().known == SESSIONS_MAX - 1));
    }
}
