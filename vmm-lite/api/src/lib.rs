//! The control API: how other processes communicate with a running VM.
//!
//! One socket per VM, in a directory that only its user may access; requests and answers are lines
//! of JSON. See `docs/control-socket.md`; its schema is `docs/control-socket.schema.json`. Members
//! are only ever added: a missing new one has a default, an unknown one is ignored.
//!
//! - [`client`]: the side of verbs and other programs
//! - [`request`]: requests as the socket receives them; [`verb`]: the verbs' arguments
//! - [`answer`]: answers and errors; [`progress`]: what precedes them
//! - [`stats`], [`moves`], [`copies`], [`replication`]: the larger answers
//! - [`dir`]: the directory of the sockets, and the names in it
//! - [`descriptors`]: open files that are sent with requests
//! - [`hang`]: where in the kernel a thread of another process waits; `silence`: what a silent VM
//!   waits for

pub mod answer;
pub mod client;
pub mod copies;
pub mod descriptors;
pub mod dir;
pub mod hang;
pub mod moves;
pub mod progress;
pub mod replication;
pub mod request;
#[cfg(test)]
mod schema;
mod silence;
pub mod stats;
pub mod verb;

pub use answer::{ErrorKind, Failure, Line, Response};
pub use client::Client;
pub use copies::{ForkReport, RevertReport, SnapshotReport};
pub use dir::{Claim, RuntimeDir};
pub use moves::MoveReport;
pub use progress::{Event, Progress};
pub use request::Request;
pub use stats::Stats;
pub use verb::Verb;

use std::{io, path::PathBuf, time::Duration};

/// Longest request line, in bytes.
pub const REQUEST_MAX: usize = 64 << 10;
/// The timeout for the rest of a line that the other side has begun, and for accepting one.
pub const TIMEOUT: Duration = Duration::from_secs(10);

/// Why a control socket could not be made or used.
#[derive(thiserror::Error, Debug)]
pub enum Error {
    /// The directory for the sockets cannot be used.
    #[error("cannot use {} for control sockets; set XDG_RUNTIME_DIR to a directory of \
        yours", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The host's error.
        source: io::Error,
    },
    /// A directory in which other users could create sockets.
    #[error("{} is not a directory of this user's that no other user may enter (mode 0700); remove \
        it, or set XDG_RUNTIME_DIR", .0.display())]
    Unsafe(PathBuf),
    /// A name that cannot be a file's.
    #[error(
        "{0:?} cannot be the name of a VM: letters, digits, '.', '_' and '-', at most 64, not \
         beginning with '.' or '-'"
    )]
    Name(String),
    /// A VM of that name runs.
    #[error(
        "a VM named {0} runs already; choose another with --name, or stop it with `vmm-lite stop \
         {0}`"
    )]
    Taken(String),
    /// No VM of that name runs.
    #[error("no VM named {0} runs here; `vmm-lite ps` lists those that do")]
    NoVm(String),
    /// A socket operation failed.
    #[error("cannot {doing} the control socket of {name}")]
    Socket {
        /// What was tried.
        doing: &'static str,
        /// The VM.
        name: String,
        /// The host's error.
        source: io::Error,
    },
    /// The VM closed the connection without an answer.
    #[error("{0} closed the connection without an answer; it has ended, or runs elsewhere now")]
    Closed(String),
    /// The VM has ended, but its process still exists.
    #[error(
        "the VM has ended, but the process that ran {name} has not within {} s: its name and its \
         TAP device are not free yet",
        time.as_secs()
    )]
    Lingers {
        /// The VM.
        name: String,
        /// How long the client waited.
        time: std::time::Duration,
    },
    /// The VM refused the request.
    #[error("{}", .0.error)]
    Refused(Failure),
    /// The VM's answer violates the protocol.
    #[error("{name} answers in a way this vmm-lite does not understand")]
    Protocol {
        /// The VM.
        name: String,
        /// What is wrong.
        source: serde_json::Error,
    },
}

/// A duration as the API has it, in ns.
#[must_use]
pub fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
