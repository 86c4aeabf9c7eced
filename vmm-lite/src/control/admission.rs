//! Admission control: which connections to the control socket are served.
//!
//! A connection is *idle* until a request is complete, and again after its answer. A new connection
//! evicts the one that has been idle longest when there are [`SESSIONS_MAX`], so that idle clients
//! cannot block others. Requests that may take long get at most [`LONG_MAX`] sessions and are
//! refused beyond that, so that `stop`, `stats` (and so `ps`), `cancel`, `resume` and `metrics` are
//! always served.

use api::{ErrorKind, Failure, Line, Request, Response};
use std::{
    os::{fd::AsRawFd, unix::net::UnixStream},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Connections served at a time.
pub const SESSIONS_MAX: usize = 32;
/// Of these, connections with a request that may take long: consoles, moves, copies, changes of the
/// protection, pauses, watches.
pub const LONG_MAX: usize = 20;
/// If a short request is not answered after this long, its client does not read the answer.
const STUCK: Duration = Duration::from_secs(1);
/// The answer to a client whose request was not read.
const EVICTED: &str = "the VM has too many clients and closed this connection, which was idle";
const FULL: &str = "the VM has too many clients; try again";
const TOO_MANY_LONG: &str = "too many requests that take long are under way at this VM \
                             (consoles, moves, copies, changes of its protection); end one of \
                             them first";

/// The sessions of one VM.
#[derive(Clone, Debug, Default)]
pub(super) struct Admission(Arc<Mutex<Sessions>>);

#[derive(Debug, Default)]
struct Sessions {
    next: u64,
    open: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    id: u64,
    stream: UnixStream,
    state: State,
    since: Instant,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Idle,
    Short,
    Long,
}

/// An admitted connection. Dropping it frees its place.
#[derive(Debug)]
pub(super) struct Session {
    admission: Admission,
    id: u64,
}

/// A request under way. Dropping it makes its session idle.
#[derive(Debug)]
pub(super) struct Serving<'s>(&'s Session);

/// Why a request is not served.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Refusal {
    /// The client has been told, and its connection is closed.
    Evicted,
    /// The client must still be told. The connection stays open.
    TooManyLong(Failure),
}

/// The answer to a client, which may `retry` on another connection if nothing was done.
fn too_many(why: &str, retry: bool) -> Failure {
    Failure { error: why.into(), kind: ErrorKind::TooMany, retry }
}

impl Admission {
    fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Admits a client, and evicts another if it must; `None` if it can evict none, after telling
    /// the client.
    pub fn admit(&self, stream: &UnixStream) -> std::io::Result<Option<Session>> {
        let own = stream.try_clone()?;
        let mut sessions = self.sessions();
        if sessions.open.len() >= SESSIONS_MAX && !sessions.evict() {
            tell(&own, FULL);
            return Ok(None);
        }
        let id = sessions.next;
        sessions.next += 1;
        let since = Instant::now();
        sessions.open.push(Entry { id, stream: own, state: State::Idle, since });
        Ok(Some(Session { admission: self.clone(), id }))
    }

    /// Evicts an idle client, if there is one, to free its descriptors.
    pub fn make_room(&self) {
        self.sessions().evict();
    }
}

impl Sessions {
    /// Evicts the session with the weakest claim to its place. Returns whether there was one.
    fn evict(&mut self) -> bool {
        let oldest = |state: State, fits: &dyn Fn(&Entry) -> bool| {
            let entries = self.open.iter().enumerate().filter(|(_, e)| e.state == state && fits(e));
            entries.min_by_key(|(_, e)| e.since).map(|(at, _)| at)
        };
        let at = oldest(State::Idle, &|e| !has_input(&e.stream))
            .or_else(|| oldest(State::Idle, &|_| true))
            .or_else(|| oldest(State::Short, &|e| e.since.elapsed() >= STUCK));
        let Some(at) = at else { return false };
        let evicted = self.open.swap_remove(at);
        if evicted.state == State::Idle {
            tell(&evicted.stream, EVICTED);
        }
        // Ends the wait of its thread.
        let _ = evicted.stream.shutdown(std::net::Shutdown::Both);
        true
    }
}

impl Session {
    /// Marks the session as serving a complete request.
    pub fn begin(&self, request: &Request) -> Result<Serving<'_>, Refusal> {
        let mut sessions = self.admission.sessions();
        let long = sessions.open.iter().filter(|e| e.state == State::Long).count();
        let state = if short(request) { State::Short } else { State::Long };
        let entry = sessions.open.iter_mut().find(|e| e.id == self.id);
        let entry = entry.ok_or(Refusal::Evicted)?;
        if state == State::Long && long >= LONG_MAX {
            return Err(Refusal::TooManyLong(too_many(TOO_MANY_LONG, false)));
        }
        (entry.state, entry.since) = (state, Instant::now());
        Ok(Serving(self))
    }
}

impl Drop for Serving<'_> {
    fn drop(&mut self) {
        let mut sessions = self.0.admission.sessions();
        if let Some(entry) = sessions.open.iter_mut().find(|e| e.id == self.0.id) {
            (entry.state, entry.since) = (State::Idle, Instant::now());
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.admission.sessions().open.retain(|e| e.id != self.id);
    }
}

/// Whether a request is answered without waiting for anything.
fn short(request: &Request) -> bool {
    match request {
        Request::Metrics(_) | Request::Resume(_) | Request::Stop(_) | Request::Cancel(_) => true,
        Request::Stats(stats) => stats.dirty_rate_ms.is_none(),
        Request::Console(_)
        | Request::Migrate(_)
        | Request::Pause(_)
        | Request::Snapshot(_)
        | Request::Fork(_)
        | Request::Revert(_)
        | Request::Protect(_)
        | Request::Unprotect(_)
        | Request::Failover(_) => false,
    }
}

/// Whether the session's thread has something to read.
fn has_input(stream: &UnixStream) -> bool {
    let mut poll = libc::pollfd { fd: stream.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: the pointer is to one valid entry.
    unsafe { libc::poll(&raw mut poll, 1, 0) > 0 && poll.revents == libc::POLLIN }
}

/// Tells a client that it may retry, if the socket accepts that at once.
fn tell(stream: &UnixStream, why: &str) {
    use nix::sys::socket::{MsgFlags, send};
    let line = Line::<Response>::Error(too_many(why, true));
    let line = serde_json::to_string(&line).expect("texts can be written") + "\n";
    // A client that does not receive it sees its connection closed.
    let _ =
        send(stream.as_raw_fd(), line.as_bytes(), MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL);
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::verb;
    use std::io::{Read, Write};

    const STOP: Request = Request::Stop(verb::Stop { force: false });
    const CONSOLE: Request = Request::Console(verb::Console {});

    fn admit(to: &Admission) -> (UnixStream, Option<Session>) {
        let (client, server) = UnixStream::pair().unwrap();
        let session = to.admit(&server).unwrap();
        (client, session)
    }

    #[test]
    fn the_longest_idle_session_is_evicted_and_told() {
        let admission = Admission::default();
        let mut open: Vec<_> = (0..SESSIONS_MAX).map(|_| admit(&admission)).collect();
        // The oldest has an unread request, the next a request under way.
        open[0].0.write_all(b"{}\n").unwrap();
        let serving = open[1].1.as_ref().unwrap().begin(&STOP).unwrap();
        let (_client, session) = admit(&admission);
        assert!(session.is_some());
        drop(serving);
        let mut told = String::new();
        open[2].0.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        open[2].0.read_to_string(&mut told).expect("it is evicted");
        assert!(told.contains("\"retry\":true"), "{told}");
        let begun = |n: usize| open[n].1.as_ref().unwrap().begin(&STOP).map(drop);
        assert_eq!((begun(0), begun(1), begun(2)), (Ok(()), Ok(()), Err(Refusal::Evicted)));
    }

    #[test]
    fn long_requests_leave_room_for_short_ones() {
        let admission = Admission::default();
        let open: Vec<_> = (0..SESSIONS_MAX).map(|_| admit(&admission)).collect();
        let long = |n: usize| open[n].1.as_ref().unwrap().begin(&CONSOLE);
        let mut serving: Vec<_> = (0..LONG_MAX).map(|n| long(n).unwrap()).collect();
        assert!(matches!(long(LONG_MAX), Err(Refusal::TooManyLong(_))));
        for _ in 0..3 * SESSIONS_MAX {
            let (_client, session) = admit(&admission);
            drop(session.unwrap().begin(&STOP).unwrap());
        }
        serving.pop();
        let (_client, session) = admit(&admission);
        drop(session.unwrap().begin(&CONSOLE).unwrap());
    }
}
