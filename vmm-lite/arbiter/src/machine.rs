//! Requests and answers as the state machines of `migrate` exchange them.

use crate::{
    error::Error,
    process::{Ask, Reply},
    swap::{Outcome, Swap},
};
use migrate::replication::arbiter::{Answer, Request};
use std::io;

impl Ask {
    /// What a state machine asks for. A swap gets a new nonce.
    ///
    /// # Errors
    /// If the host has no random bytes.
    pub fn of(request: &Request) -> io::Result<Self> {
        Ok(match request {
            Request::Read(set) => Self::Read(*set),
            Request::CompareAndSwap { expected, new } => {
                Self::Swap(Swap::new(*expected, new.clone())?)
            }
        })
    }
}

/// The answer that the state machine gets for the reply to its request. Every error leaves it open
/// whether a swap has happened, which is true of most and safe for the others.
#[must_use]
pub fn answer(reply: Result<Reply, Error>) -> Answer {
    match reply {
        Ok(Reply::Found(found)) => Answer::Found(found.map(Into::into)),
        Ok(Reply::Changed(Outcome::Won(version))) => Answer::Swapped(version),
        Ok(Reply::Changed(Outcome::Lost(found))) => Answer::Conflict(found.map(Into::into)),
        Ok(Reply::Announced | Reply::Present(_)) => {
            Answer::Unreachable("the arbiter has answered another request".into())
        }
        Err(e) => Answer::Unreachable(e.to_string()),
    }
}
