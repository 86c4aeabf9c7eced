//! Names to addresses: addresses that are written out, the guest's own names, and what name servers
//! answer.

use super::message::{self, ANSWER_MAX, Answer, PORT};
use crate::{
    entropy,
    net::{self, SocketId, calls::Kind},
    params,
    sched::{Wake, readiness::Waits},
    time,
};
use alloc::{rc::Rc, vec, vec::Vec};
use core::{
    net::{IpAddr, Ipv4Addr, SocketAddrV4},
    str,
};

/// Why a name has no address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ResolveError {
    /// It does not exist, or cannot be a name.
    NoName,
    /// It is an address of another family than IPv4.
    Family,
    /// No name server answered, or there is none.
    TryAgain,
    /// A name server failed.
    Failed,
}

/// How long to wait for an answer of one server, ns.
const TIMEOUT: u64 = 2_000_000_000;
/// How often each server is asked.
const ROUNDS: usize = 2;

/// A UDP socket that has no descriptor.
struct Client {
    id: SocketId,
    waits: Rc<Waits>,
}

impl Drop for Client {
    fn drop(&mut self) {
        net::close(self.id);
    }
}

impl Client {
    fn new() -> Self {
        let (id, waits) = net::socket(Kind::Datagram);
        Self { id, waits }
    }

    /// Asks one server; `None` when it does not answer in time.
    fn ask(&self, server: Ipv4Addr, question: &[u8]) -> Option<Answer> {
        let to = SocketAddrV4::new(server, PORT);
        let sent = net::with(|network| {
            // Connected, so that only this server can answer, and that a refusal is reported.
            network.connect(self.id, to)?;
            network.send(self.id, question)
        });
        sent.ok()?;
        let deadline = time::now_ns() + TIMEOUT;
        let mut buffer = [0; ANSWER_MAX];
        loop {
            match net::with(|network| network.receive(self.id, &mut buffer, false)) {
                Ok(n) => {
                    if let Some(answer) = message::answer(&buffer[..n], question) {
                        return Some(answer);
                    }
                }
                Err(net::Error::WouldBlock) => {
                    if self.waits.readers.wait(Some(deadline)) == Wake::TimedOut {
                        return None;
                    }
                }
                Err(_) => return None,
            }
        }
    }
}

/// Asks the name servers for the addresses of `name`.
fn ask_servers(name: &[u8]) -> Result<Vec<Ipv4Addr>, ResolveError> {
    let servers = params::dns().into_iter().filter_map(|server| match server {
        IpAddr::V4(server) => Some(server),
        IpAddr::V6(_) => None,
    });
    let servers: Vec<Ipv4Addr> = servers.collect();
    if servers.is_empty() {
        return Err(ResolveError::TryAgain);
    }
    let mut failure = ResolveError::TryAgain;
    for _ in 0..ROUNDS {
        for &server in &servers {
            // Another port and another number each time: both are hard to guess for an attacker
            // that would answer instead.
            let mut id = [0; 2];
            entropy::fill(&mut id);
            let question =
                message::question(u16::from_ne_bytes(id), name).ok_or(ResolveError::NoName)?;
            match Client::new().ask(server, &question) {
                Some(Answer::Addresses(addresses)) => return Ok(addresses),
                Some(Answer::None) => return Err(ResolveError::NoName),
                Some(Answer::Failure) => failure = ResolveError::Failed,
                None => {}
            }
        }
    }
    Err(failure)
}

/// The IPv4 addresses of `name`, at least one. Waits for name servers.
///
/// # Errors
/// [`ResolveError`].
pub fn resolve(name: &[u8]) -> Result<Vec<Ipv4Addr>, ResolveError> {
    let text = str::from_utf8(name).map_err(|_| ResolveError::NoName)?;
    match text.parse() {
        Ok(IpAddr::V4(ip)) => return Ok(vec![ip]),
        Ok(IpAddr::V6(_)) => return Err(ResolveError::Family),
        Err(_) => {}
    }
    let host = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    if host == "localhost" || host.ends_with(".localhost") {
        return Ok(vec![Ipv4Addr::LOCALHOST]);
    }
    if params::hostname().is_some_and(|own| own.eq_ignore_ascii_case(&host)) {
        return Ok(vec![match params::ip() {
            Some((IpAddr::V4(ip), _)) => ip,
            _ => Ipv4Addr::LOCALHOST,
        }]);
    }
    ask_servers(name)
}
