//! Answers: lines of JSON, as the client receives them.

use crate::{
    copies::{ForkReport, RevertReport, SnapshotReport},
    moves::MoveReport,
    progress::Progress,
    replication::{Protected, Swapped},
    stats::Stats,
};
use serde::{Deserialize, Serialize};

/// A line of the VM: any number of [`Progress`](Self::Progress), then one of the others.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(!try_from))]
#[serde(untagged, try_from = "Members<A>")]
pub enum Line<A> {
    /// Not the last line.
    Progress {
        /// What the verb does.
        progress: Progress,
    },
    /// The last line: done.
    Ok {
        /// The answer.
        ok: A,
    },
    /// The last line: not done.
    Error(Failure),
}

/// An error as it is sent.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Failure {
    /// Why, for people.
    pub error: String,
    /// What kind of error it is, for programs.
    #[serde(default)]
    pub kind: ErrorKind,
    /// The VM looked at no request of this connection, and closes it: the client may try on a new
    /// one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub retry: bool,
}

/// What a program may want to tell errors apart by. Kinds are only ever added; one that is not
/// known is read as [`Failed`](Self::Failed).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The request is invalid: the same one will fail again.
    Invalid,
    /// The VM has too many clients, or requests that take long.
    TooMany,
    /// Another operation is in progress.
    Busy,
    /// There is no operation to cancel.
    NoOperation,
    /// It is too late to cancel.
    TooLate,
    /// It was cancelled, or its client disconnected.
    Cancelled,
    /// The request's own timeout expired.
    Timeout,
    /// The VM is not paused.
    NotPaused,
    /// The VM was handed to another host, which runs it or may run it.
    HandedOver,
    /// The VM has ended.
    Ended,
    /// Anything else.
    #[default]
    #[serde(other)]
    Failed,
}

/// A line's members. A union of types would have errors that name no member.
#[derive(Deserialize)]
struct Members<A> {
    progress: Option<Progress>,
    ok: Option<A>,
    error: Option<String>,
    #[serde(default)]
    kind: ErrorKind,
    #[serde(default)]
    retry: bool,
}

impl<A> TryFrom<Members<A>> for Line<A> {
    type Error = &'static str;

    fn try_from(members: Members<A>) -> Result<Self, &'static str> {
        let Members { progress, ok, error, kind, retry } = members;
        match (progress, ok, error) {
            (Some(progress), _, _) => Ok(Self::Progress { progress }),
            (None, Some(ok), _) => Ok(Self::Ok { ok }),
            (None, None, Some(error)) => Ok(Self::Error(Failure { error, kind, retry })),
            (None, None, None) => Err("neither progress, nor ok, nor error"),
        }
    }
}

/// The value of `ok`, whichever verb it answers: what a VM sends.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum Response {
    /// To `stats`.
    Stats(Box<Stats>),
    /// To `metrics`.
    Metrics(Metrics),
    /// To `pause`.
    Paused(Paused),
    /// To `resume`, `stop`, `cancel` and `unprotect`.
    Done(Done),
    /// To `console`.
    ConsoleOpen(ConsoleOpen),
    /// To `migrate`.
    Moved(Box<MoveReport>),
    /// To `snapshot`.
    Saved(SnapshotReport),
    /// To `fork`.
    Forked(ForkReport),
    /// To `revert`.
    Reverted(RevertReport),
    /// To `protect`.
    Protected(Protected),
    /// To `failover`.
    Swapped(Swapped),
}

/// The answer to `resume`, `stop`, `cancel` and `unprotect`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Done {}

/// The answer to `metrics`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Metrics {
    /// The figures in the text format of Prometheus.
    pub text: String,
}

/// The answer to `pause`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Paused {
    /// Whether the program's quiesce hooks have run.
    pub quiescent: bool,
    /// From the request to the stop, in ns.
    pub took_ns: u64,
}

/// The answer to `console`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ConsoleOpen {
    /// True: the connection is the console from now on, in raw bytes.
    pub raw: bool,
}
