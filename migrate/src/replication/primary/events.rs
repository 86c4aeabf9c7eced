//! Events and actions of the primary's state machine.

use crate::replication::{
    Position,
    arbiter::{Answer, MemberId, Request, Term},
    wire::Message,
};

/// What happens to the primary.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Event {
    /// The log has grown.
    Appended {
        /// Position of its last record.
        last: Position,
        /// Size of what was added, in bytes.
        bytes: u64,
    },
    /// A standby has been seeded with a copy of the VM, and its replication connection is open.
    Seeded {
        /// The standby. Its process was never in this set before.
        member: MemberId,
        /// The copy is the VM after this record. The driver has the records after it.
        base: Position,
    },
    /// A message from a standby.
    Message {
        /// The standby.
        from: MemberId,
        /// The message.
        message: Message,
    },
    /// The connection to a standby is lost, or what came was no message.
    Disconnected {
        /// The standby.
        member: MemberId,
        /// Why, for people.
        why: String,
    },
    /// The driver or its user has reason to think that a standby is gone, other than missed
    /// heartbeats. A false alarm costs the standby its place in the set and nothing else.
    Suspected {
        /// The standby.
        member: MemberId,
        /// Why, for people.
        why: String,
    },
    /// The arbiter's answer to [`Action::Ask`].
    Arbiter(Answer),
    /// A planned swap: this standby is to become the primary, as soon as it has executed nearly all
    /// of the log.
    Swap {
        /// The standby.
        to: MemberId,
    },
    /// The guest is stopped after [`Action::Stop`], at the end of the log.
    Stopped,
    /// The guest cannot be stopped after [`Action::Stop`], or the user cancels the swap.
    SwapCancelled(String),
    /// The VM is to be protected no longer.
    Unprotect,
    /// The [deadline](super::Primary::deadline) is over.
    Tick,
}

/// What the primary's driver is to do.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Action {
    /// Ask the arbiter, and report [`Event::Arbiter`]. At most one request is open. The driver
    /// answers in bounded time; an answer after that is not delivered.
    Ask(Request),
    /// Send a message.
    Send {
        /// To this standby.
        to: MemberId,
        /// The message.
        message: Message,
    },
    /// Send these records, in as many messages as they need; see
    /// [`records_head`](crate::replication::wire::records_head).
    SendRecords {
        /// To this standby.
        to: MemberId,
        /// The first.
        first: Position,
        /// The last.
        last: Position,
        /// For the head of the message.
        released: Position,
    },
    /// Close the connection to a member when what was sent to it is out. No event follows.
    Close(MemberId),
    /// Output that depends on records up to this one may leave the host.
    Release(Position),
    /// Begin or end to slow down the guest: a standby falls behind.
    SlowDown(bool),
    /// Stop the guest for a swap, and report [`Event::Stopped`] after the last
    /// [`Event::Appended`].
    Stop,
    /// The swap is off: let the guest run on, whether it is stopped yet or not.
    Resume,
    /// The VM has been given to a standby. This member is a standby now: the driver goes on with
    /// [`Primary::into_standby`](super::Primary::into_standby). What it holds of output it keeps
    /// until it learns that it was released.
    HandedOver,
    /// This member has lost: another is active, or was. Never release anything again, stop the
    /// guest, and end.
    Fence {
        /// The term in which it lost.
        term: Term,
    },
    /// Tell the user.
    Report(News),
}

/// What a user should know.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum News {
    /// The standby is in sync, by the arbiter's record: the VM is protected by it.
    InSync(MemberId),
    /// The standby is not accepted, and was told to go.
    NotAccepted {
        /// The standby.
        member: MemberId,
        /// Why.
        why: &'static str,
    },
    /// The standby is taken out of the set. Output waits until the arbiter has recorded that.
    Leaving {
        /// The standby.
        member: MemberId,
        /// Why.
        why: Lost,
    },
    /// The arbiter has recorded that the standby left the set. Seed a new one.
    Left(MemberId),
    /// The arbiter cannot be asked; it is asked again.
    ArbiterUnreachable(String),
    /// Output is released although the arbiter could not be asked:
    /// [`alone_without_arbiter`](crate::replication::Settings::alone_without_arbiter).
    AloneWithoutArbiter,
    /// The swap did not take place; the VM runs on at this member.
    SwapFailed(String),
    /// All standbys were told to end.
    Unprotected,
}

/// Why a standby is taken out of the set.
#[derive(Clone, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum Lost {
    /// Its connection is lost.
    #[error("its connection is lost: {0}")]
    Disconnected(String),
    /// The driver suspects it.
    #[error("it seems to be gone: {0}")]
    Suspected(String),
    /// It missed its heartbeats.
    #[error("it missed its heartbeats: check its host and the link to it")]
    Silent,
    /// It was too far behind for too long.
    #[error("it executes too slowly: use a faster host, or allow more lag")]
    Lag,
    /// Its copy differs from the log.
    #[error("its copy diverged at record {position}: {what}")]
    Diverged {
        /// The record.
        position: Position,
        /// The difference.
        what: String,
    },
    /// It sent something that makes no sense.
    #[error("it broke the protocol: {0}")]
    Nonsense(&'static str),
}
