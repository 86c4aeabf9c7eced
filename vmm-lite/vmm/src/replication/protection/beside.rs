//! What works for a member outside of its process: that one is confined, and may die.

use super::{PacketKeeper, Protector};
use migrate::replication::arbiter::{Answer, Request};
use std::{fmt, os::fd::RawFd};

/// See the module.
#[derive(Debug)]
pub struct Beside {
    /// The way to the arbiter.
    pub arbiter: Box<dyn Arbiter>,
    /// Keeps the packets of a primary whose process dies; without it they are lost.
    pub keeper: Option<PacketKeeper>,
    /// Has the VM protected again when it has no standby left; without it a user does.
    pub protector: Option<Protector>,
}

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
