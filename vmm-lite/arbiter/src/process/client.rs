//! The VM's process: requests to the process that talks to the arbiter.

use super::{
    protocol::{Answer, Ask, REQUESTS_MAX, Reply, Request, RequestId, decode, encode},
    socket::{put, take, wait},
};
use crate::{
    error::Error,
    record::{MemberId, SetId, Version},
    swap::{Current, Outcome, Swap},
};
use std::{
    collections::{BTreeMap, VecDeque},
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

/// What the other process may need beyond a request's deadline.
const GRACE: Duration = Duration::from_millis(200);

/// A connection to the process that talks to the arbiter, for one thread.
///
/// It uses `sendto` and `recvfrom` without waiting, and `poll` in the calls that wait.
#[derive(Debug)]
pub struct ArbiterClient {
    socket: OwnedFd,
    next: u64,
    /// Requests without an answer: whether they change a record.
    waiting: BTreeMap<RequestId, bool>,
    /// Answers that arrived while another one was waited for.
    ready: VecDeque<(RequestId, Result<Reply, Error>)>,
    /// Why the connection has ended.
    ended: Option<String>,
}

impl ArbiterClient {
    /// A client of the process that [serves](super::serve) the other end of `socket`.
    #[must_use]
    pub fn new(socket: OwnedFd) -> Self {
        let (waiting, ready) = (BTreeMap::new(), VecDeque::new());
        Self { socket, next: 0, waiting, ready, ended: None }
    }

    /// Sends a request, without waiting. Its answer comes within `within` and a grace period of the
    /// other process; [`answer`](Self::answer) returns it.
    ///
    /// # Errors
    /// [`Error::Busy`]; [`Error::Unreachable`] when the other process has ended: nothing was sent.
    pub fn send(&mut self, ask: Ask, within: Duration) -> Result<RequestId, Error> {
        let outstanding = self.waiting.len() + self.ready.len();
        if outstanding >= REQUESTS_MAX {
            return Err(Error::Busy(outstanding));
        }
        let gone = |why: &str| Error::Unreachable(format!("the process for it has ended: {why}"));
        if let Some(why) = &self.ended {
            return Err(gone(why));
        }
        let (id, changes) = (RequestId(self.next), ask.changes());
        let within_ms = u32::try_from(within.as_millis()).unwrap_or(u32::MAX);
        let message = encode(&Request { id, within_ms, ask });
        let message = message.map_err(|e| Error::Refused(e.to_string()))?;
        match put(&self.socket, &message) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                return Err(Error::Busy(outstanding));
            }
            Err(e) => return Err(gone(&e.to_string())),
        }
        self.next += 1;
        self.waiting.insert(id, changes);
        Ok(id)
    }

    /// The next answer, without waiting; `None` if there is none yet. When the other process has
    /// ended, every request without an answer gets an error.
    pub fn answer(&mut self) -> Option<(RequestId, Result<Reply, Error>)> {
        if let Some(ready) = self.ready.pop_front() {
            return Some(ready);
        }
        while self.ended.is_none() {
            match self.receive() {
                Ok(Some(answer)) => return Some(answer),
                Ok(None) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return None,
                Err(e) => self.ended = Some(e.to_string()),
            }
        }
        let (id, changes) = self.waiting.pop_first()?;
        let why = self.ended.clone().unwrap_or_default();
        let error = if changes { Error::Ended(why) } else { Error::Unreachable(why) };
        Some((id, Err(error)))
    }

    /// One message. `None`: the answer to a request for which no caller waits any more.
    fn receive(&mut self) -> io::Result<Option<(RequestId, Result<Reply, Error>)>> {
        let message = take(&self.socket)?;
        if message.is_empty() {
            return Err(io::Error::other("it has closed its socket"));
        }
        let Answer { id, reply } = decode(&message)?;
        Ok(self.waiting.remove(&id).map(|_| (id, reply)))
    }

    /// Sends a request and waits for its answer. Other answers that arrive meanwhile are returned
    /// by [`answer`](Self::answer); the descriptor does not report them again.
    fn ask(&mut self, ask: Ask, within: Duration) -> Result<Reply, Error> {
        let end = Instant::now() + within + GRACE;
        let id = self.send(ask, within)?;
        let mut others = VecDeque::new();
        let reply = loop {
            match self.answer() {
                Some((answered, reply)) if answered == id => break reply,
                Some(other) => {
                    others.push_back(other);
                    continue;
                }
                None => {}
            }
            match wait(&self.socket, end) {
                Ok(true) => {}
                Ok(false) => break self.give_up(id),
                Err(e) => self.ended = Some(e.to_string()),
            }
        };
        others.append(&mut self.ready);
        self.ready = others;
        reply
    }

    /// The other process has missed its deadline.
    fn give_up(&mut self, id: RequestId) -> Result<Reply, Error> {
        let why = "the process for it does not answer".to_owned();
        match self.waiting.remove(&id) {
            Some(true) => Err(Error::Unknown(why)),
            _ => Err(Error::Unreachable(why)),
        }
    }

    /// The record of a set, as it was at some moment between call and return.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn read(&mut self, set: SetId, within: Duration) -> Result<Option<Current>, Error> {
        match self.ask(Ask::Read(set), within)? {
            Reply::Found(found) => Ok(found),
            _ => Err(mixed_up()),
        }
    }

    /// Changes a record. After an [ambiguous](Error::is_ambiguous) error, repeat the same `swap`
    /// until the answer is certain.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn swap(&mut self, swap: &Swap, within: Duration) -> Result<Outcome, Error> {
        match self.ask(Ask::Swap(swap.clone()), within)? {
            Reply::Changed(outcome) => Ok(outcome),
            _ => Err(mixed_up()),
        }
    }

    /// Removes a set's record if its version is `expected`.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn forget(
        &mut self,
        set: SetId,
        expected: Version,
        within: Duration,
    ) -> Result<Outcome, Error> {
        match self.ask(Ask::Forget(set, expected), within)? {
            Reply::Changed(outcome) => Ok(outcome),
            _ => Err(mixed_up()),
        }
    }

    /// Shows other members that this process runs, until it ends.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn announce(
        &mut self,
        set: SetId,
        member: MemberId,
        within: Duration,
    ) -> Result<(), Error> {
        match self.ask(Ask::Announce(set, member), within)? {
            Reply::Announced => Ok(()),
            _ => Err(mixed_up()),
        }
    }

    /// Which of `members` have announced themselves and seem to run: for display only.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn present(
        &mut self,
        set: SetId,
        members: &[MemberId],
        within: Duration,
    ) -> Result<Vec<MemberId>, Error> {
        match self.ask(Ask::Present(set, members.to_vec()), within)? {
            Reply::Present(present) => Ok(present),
            _ => Err(mixed_up()),
        }
    }
}

/// Readable when [`ArbiterClient::answer`] may return something.
impl AsFd for ArbiterClient {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn mixed_up() -> Error {
    Error::Unknown("the process for it has answered another request".into())
}
