//! Why the destination gives up a VM, or waits for its source.

use super::bounds::Excess;
use crate::{offer::Refusal, wire::Kind};

/// Why the destination discards the VM: it never runs here.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Hash, Debug)]
pub enum GivenUp {
    /// The source cannot be reached.
    #[error(transparent)]
    Away(#[from] Away),
    /// The source asked, on another connection, how the move ended.
    #[error("the source asked for the outcome before it committed")]
    Asked,
    /// The source cancelled.
    #[error("{0}")]
    Aborted(String),
    /// The offer repeats what a source sent to another receiver.
    #[error("the offer was made to another receiver, so it is a replay")]
    Replayed,
    /// The VM cannot run here.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The source sends too much.
    #[error(transparent)]
    Excess(#[from] Excess),
    /// The driver could not carry out an action.
    #[error("{0}")]
    Here(String),
    /// A message arrived at the wrong time.
    #[error("{0:?} came at the wrong time")]
    Unexpected(Kind),
    /// Pages arrived at the wrong time.
    #[error("pages came at the wrong time")]
    UnexpectedPages,
}

/// Why the source cannot be reached.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Hash, Debug)]
pub enum Away {
    /// The connection is lost.
    #[error("{0}")]
    Link(String),
    /// It sends nothing.
    #[error("the source fell silent")]
    Silent,
}
