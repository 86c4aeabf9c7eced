//! The data that a command works on: the whole server, seen from one client.

use super::error::{Error, NOT_FLOAT, NOT_INTEGER, OUT_OF_MEMORY};
use crate::config::Config;
use crate::memory::Guard;
use crate::protocol::OwnedArgs;
use crate::protocol::number::{parse_f64, parse_i64};
use crate::store::{Keyspace, Store};
use crate::vmm::Vmm;
use slab::Slab;
use std::net::SocketAddr;

/// Everything that commands can see and change.
#[derive(Debug)]
pub struct State {
    /// The data.
    pub store: Store,
    /// The clients, by the number of their connection.
    pub sessions: Slab<Box<Session>>,
    /// The settings.
    pub config: Config,
    /// The memory limit.
    pub memory: Guard,
    /// Counters for INFO.
    pub stats: Stats,
    /// Data for tests of moves.
    pub vmm: Vmm,
    /// Clients to disconnect: the number of their connection, which another client may have by
    /// then, and their id.
    pub kills: Vec<(usize, u64)>,
    /// Whether the server must end.
    pub shutdown: bool,
    /// The id that the next client gets.
    pub next_id: u64,
}

impl State {
    /// A fresh server's.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let memory = Guard::new(config.maxmemory);
        Self {
            store: Store::new(),
            sessions: Slab::new(),
            config,
            memory,
            stats: Stats::default(),
            vmm: Vmm::new(),
            kills: Vec::new(),
            shutdown: false,
            next_id: 1,
        }
    }
}

/// Counters for INFO.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    /// Connections accepted.
    pub connections: u64,
    /// Connections refused because there were too many.
    pub rejected: u64,
    /// Commands executed.
    pub commands: u64,
    /// Lookups that found the key.
    pub hits: u64,
    /// Lookups that did not.
    pub misses: u64,
    /// Bytes read from clients.
    pub input: u64,
    /// Bytes written to clients.
    pub output: u64,
    /// Error replies.
    pub errors: u64,
}

/// Whether a client wants replies.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ReplyMode {
    /// Yes.
    #[default]
    On,
    /// No.
    Off,
    /// Not to this command, and not to the next.
    SkipNext,
    /// Not to this command.
    Skip,
}

/// The server's data on a client.
#[derive(Debug)]
pub struct Session {
    /// Unique.
    pub id: u64,
    /// Its address.
    pub peer: SocketAddr,
    /// The server's address that it connected to.
    pub local: SocketAddr,
    /// The client's name for itself.
    pub name: Vec<u8>,
    /// Whether it chose RESP3.
    pub resp3: bool,
    /// Its database.
    pub database: usize,
    /// The queued commands, between MULTI and EXEC.
    pub queue: Option<Vec<OwnedArgs>>,
    /// Something could not be queued, so EXEC will refuse.
    pub queue_failed: bool,
    /// The keys that it watches: database, key, and the number of the last change.
    pub watched: Vec<(usize, Vec<u8>, u64)>,
    /// Whether it wants replies.
    pub reply_mode: ReplyMode,
    /// Disconnect it after the reply.
    pub close: bool,
    /// When it connected, Unix time in ms.
    pub since: u64,
    /// When it last sent something, Unix time in ms.
    pub active: u64,
    /// The last command.
    pub command: &'static str,
}

impl Session {
    /// A client that has just connected.
    #[must_use]
    pub fn new(id: u64, peer: SocketAddr, local: SocketAddr, now: u64) -> Self {
        Self {
            id,
            peer,
            local,
            name: Vec::new(),
            resp3: false,
            database: 0,
            queue: None,
            queue_failed: false,
            watched: Vec::new(),
            reply_mode: ReplyMode::On,
            close: false,
            since: now,
            active: now,
            command: "NULL",
        }
    }
}

/// A command's view.
#[derive(Debug)]
pub struct Context<'a> {
    /// The whole server.
    pub state: &'a mut State,
    /// The client's number.
    pub client: usize,
    /// Unix time in ms.
    pub now: u64,
}

impl Context<'_> {
    /// The client.
    pub fn session(&mut self) -> &mut Session {
        &mut self.state.sessions[self.client]
    }

    /// The client's database.
    pub fn db(&mut self) -> &mut Keyspace {
        let index = self.state.sessions[self.client].database;
        self.state.store.database(index)
    }

    /// Counts a lookup.
    pub fn looked_up(&mut self, found: bool) {
        if found {
            self.state.stats.hits += 1;
        } else {
            self.state.stats.misses += 1;
        }
    }

    /// Refuses if `bytes` more memory is not available.
    ///
    /// # Errors
    /// There is not that much memory.
    pub fn need_memory(&self, bytes: usize) -> Result<(), Error> {
        if self.state.memory.allows(bytes) { Ok(()) } else { Err(OUT_OF_MEMORY) }
    }
}

/// A word as an integer.
///
/// # Errors
/// The word is not an integer.
pub fn integer(word: &[u8]) -> Result<i64, Error> {
    parse_i64(word).ok_or(NOT_INTEGER)
}

/// A word as a floating point number.
///
/// # Errors
/// The word is not a floating point number.
pub fn float(word: &[u8]) -> Result<f64, Error> {
    parse_f64(word).ok_or(NOT_FLOAT)
}

/// The part of `len` elements between `start` and `end`; negative ones count from the end, and
/// `end` is included.
#[must_use]
pub fn range(start: i64, end: i64, len: usize) -> std::ops::Range<usize> {
    let len = len as i64;
    let from_end = |index: i64| if index < 0 { index.saturating_add(len).max(0) } else { index };
    let (start, mut end) = (from_end(start), if end < 0 { end.saturating_add(len) } else { end });
    end = end.min(len - 1);
    if start > end || start >= len { 0..0 } else { start as usize..end as usize + 1 }
}

#[cfg(test)]
mod tests {
    use super::range;

    #[test]
    fn ranges_count_from_both_ends() {
        for (start, end, want) in [
            (0, -1, 0..10),
            (0, 0, 0..1),
            (-3, -1, 7..10),
            (-100, 2, 0..3),
            (5, 100, 5..10),
            (3, 2, 0..0),
            (10, 20, 0..0),
            (0, -11, 0..0),
            (i64::MIN, i64::MAX, 0..10),
            (i64::MAX, i64::MIN, 0..0),
        ] {
            assert_eq!(range(start, end, 10), want, "{start} {end}");
        }
        assert_eq!(range(0, -1, 0), 0..0);
    }
}
