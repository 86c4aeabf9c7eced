//! Events and actions of the standby's state machine.

use crate::replication::{
    Position,
    arbiter::{Answer, Request, Term},
    wire::Message,
};

/// What happens to the standby.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Event {
    /// A message from the primary.
    Message(Message),
    /// The copy has executed all records up to this one, and did what the log says.
    Executed(Position),
    /// The copy did something else at this record than the log says.
    Diverged {
        /// The record.
        position: Position,
        /// The difference, for people.
        what: String,
    },
    /// The connection to the primary is lost, or what came was no message.
    Disconnected(String),
    /// The driver or its user has reason to think that the primary is gone, other than missed
    /// heartbeats. If that is wrong, one of the two members goes on and the other one ends.
    Suspected(String),
    /// The arbiter's answer to [`Action::Ask`].
    Arbiter(Answer),
    /// The [deadline](super::Standby::deadline) is over.
    Tick,
}

/// What the standby's driver is to do.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Action {
    /// Execute these records after those before them, and report [`Event::Executed`]. Output that
    /// the copy makes is held until it is known to have been [released](Self::Released).
    Execute {
        /// The first.
        first: Position,
        /// The last.
        last: Position,
        /// The records.
        records: Vec<u8>,
    },
    /// Output that depends on records up to this one has left the primary: drop it.
    Released(Position),
    /// Send a message to the primary.
    Send(Message),
    /// Close the connection to the primary. No event follows.
    Close,
    /// Ask the arbiter, and report [`Event::Arbiter`]. At most one request is open. The driver
    /// answers in bounded time; an answer after that is not delivered.
    Ask(Request),
    /// This member is the primary now, and the log ends with the record at `position`: the driver
    /// goes on with [`Standby::into_primary`](super::Standby::into_primary), whose actions release
    /// the output that it holds, announces the VM to the network, and runs it on.
    TakeOver {
        /// The last record.
        position: Position,
        /// Output up to here was released by the primary before, as far as is known; output after
        /// it is released, maybe for the second time.
        released: Position,
    },
    /// The standby is not needed, or must not go on: it ends, and never runs the VM.
    End(Ended),
    /// The primary is gone: this member asks the arbiter whether it may go on. For the user.
    PrimaryLost(Lost),
    /// The arbiter cannot be asked; it is asked again. For the user.
    ArbiterUnreachable(String),
    /// This member goes on although the arbiter could not be asked:
    /// [`alone_without_arbiter`](crate::replication::Settings::alone_without_arbiter). For the user.
    AloneWithoutArbiter,
}

/// Why the primary is given up.
#[derive(Clone, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum Lost {
    /// Its connection is lost.
    #[error("the connection to the primary is lost: {0}")]
    Disconnected(String),
    /// The driver suspects it.
    #[error("the primary seems to be gone: {0}")]
    Suspected(String),
    /// It missed its heartbeats.
    #[error("the primary missed its heartbeats")]
    Silent,
    /// It sent something that makes no sense.
    #[error("the primary broke the protocol: {0}")]
    Nonsense(&'static str),
}

/// Why a standby ended.
#[derive(Clone, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum Ended {
    /// The primary said so: the VM is protected no longer.
    #[error("the VM is no longer protected")]
    Goodbye,
    /// The primary took it out of the set.
    #[error("the primary took this standby out of the set in term {0}: start another one")]
    Dropped(Term),
    /// Another member is active by the arbiter's record, and this one is not in sync.
    #[error(
        "this standby is not in sync in term {0}: another member goes on, start another standby"
    )]
    Lost(Term),
    /// Its copy differs from the log.
    #[error("the copy diverged at record {position}: {what}; start another standby")]
    Diverged {
        /// The record.
        position: Position,
        /// The difference.
        what: String,
    },
}
