//! What a command works on: everything the server has, seen from one client.

use super::error::{Error, NOT_FLOAT, NOT_INTEGER, OUT_OF_MEMORY};
use crate::config::Config;
use crate::memory::Guard;
use crate::protocol::OwnedArgs;
use crate::protocol::number::{parse_f64, parse_i64};
use crate::store::{Keyspace, Store};
use crate::vmm::Vmm;
use slab::Slab;
use std::net::SocketAddr;

/// All that commands can see and change.
#[derive(Debug)]
pub struct State {
    /// The data.
    pub store: Store,
    /// The clients, by the number their connection has.
    pub sessions: Slab<Box<Session>>,
    /// The settings.
    pub config: Config,
    /// The memory limit.
    pub memory: Guard,
    /// What INFO counts.
    pub stats: Stats,
    /// What tests of moves look at.
    pub vmm: Vmm,
    /// Clients to disconnect: the number of their connection, which another may have by then, and
    /// their id.
    pub kills: Vec<(usize, u64)>,
    /// The server is to end.
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
    /// Connections refused, as there were too many.
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

/// What the server knows of a client.
#[derive(Debug)]
pub struct Session {
    /// Unique.
    pub id: u64,
    /// Its address.
    pub peer: SocketAddr,
    /// The server's address that it connected to.
    pub local: SocketAddr,
    /// What it calls itself.
    pub name: Vec<u8>,
    /// Whether it chose RESP3.
    pub resp3: bool,
    /// Its database.
    pub database: usize,
    /// Between MULTI and EXEC: what is queued.
    pub queue: Option<Vec<OwnedArgs>>,
    /// Something could not be queued, so EXEC will refuse.
    pub queue_failed: bool,
    /// What it watches: database, key, and the change seen then.
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
    /// Everything.
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

    /// Refuses what would need `bytes` more memory than there is.
    ///
    /// # Errors
    /// There is not so much.
    pub fn need_memory(&self, bytes: usize) -> Result<(), Error> {
        if self.state.memory.allows(bytes) { Ok(()) } else { Err(OUT_OF_MEMORY) }
    }
}

/// A word as an integer.
///
/// # Errors
/// It is none.
pub fn integer(word: &[u8]) -> Result<i64, Error> {
    parse_i64(word).ok_or(NOT_INTEGER)
}

/// A word as a floating point number.
///
/// # Errors
/// It is none.
pub fn float(word: &[u8]) -> Result<f64, Error> {
    parse_f64(word).ok_or(NOT_FLOAT)
}

/// The part of `len` elements that `start` and `end` mean, where negative ones count from the end
/// and `end` is included.
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
