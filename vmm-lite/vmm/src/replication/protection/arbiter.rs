//! The way to the arbiter, which another process asks: this one is confined.

use migrate::replication::arbiter::{Answer, Request};
use std::{fmt, os::fd::RawFd};

/// Asks the arbiter of a replica set, without ever blocking.
pub trait Arbiter: fmt::Debug + Send {
    /// Begins a request. There is at most one that has no answer yet. One that cannot be begun is
    /// answered with [`Answer::Unreachable`] by the next [`answer`](Self::answer).
    fn ask(&mut self, request: &Request);

    /// The answer, if it is there. It comes in bounded time.
    fn answer(&mut self) -> Option<Answer>;

    /// Readable when an answer may be there.
    fn fd(&self) -> RawFd;
}
