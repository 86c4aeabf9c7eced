//! The control API: how other processes talk to a running VM.
//!
//! One socket a VM, in a directory that only its user may enter; requests and answers are lines of
//! JSON. See `docs/control-socket.md`.
//!
//! - [`client`]: the side of verbs and other programs
//! - [`request`]: requests as they come through the socket
//! - [`dir`]: the directory of the sockets, and the names in it
//! - [`descriptors`]: open files that travel with requests
//! - [`hang`]: where in the kernel a thread of another process waits; `silence`: what a VM that
//!   says nothing waits for

pub mod client;
pub mod descriptors;
pub mod dir;
pub mod hang;
pub mod request;
mod silence;

pub use client::Client;
pub use dir::{Claim, RuntimeDir};
pub use request::Request;

use std::{io, path::PathBuf, time::Duration};

/// Longest request line, in bytes.
pub const REQUEST_MAX: usize = 64 << 10;
/// How long the other side may take over one line that it has begun, or over taking one.
pub const TIMEOUT: Duration = Duration::from_secs(10);

/// Why a control socket could not be made or talked to.
#[derive(thiserror::Error, Debug)]
pub enum Error {
    /// No directory for the sockets.
    #[error("cannot use {} for control sockets; set XDG_RUNTIME_DIR to a directory of \
        yours", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the host says.
        source: io::Error,
    },
    /// A directory that others could put sockets into.
    #[error("{} is not a directory of this user's that nobody else may enter (mode 0700); remove \
        it, or set XDG_RUNTIME_DIR", .0.display())]
    Unsafe(PathBuf),
    /// A name that does not do for a file.
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
    /// A socket that fails.
    #[error("cannot {doing} the control socket of {name}")]
    Socket {
        /// What was tried.
        doing: &'static str,
        /// The VM.
        name: String,
        /// What the host says.
        source: io::Error,
    },
    /// The VM went away in mid-conversation.
    #[error("{0} closed the connection without an answer; it has ended, or runs elsewhere now")]
    Closed(String),
    /// The VM has ended, and its process has not.
    #[error(
        "the VM has ended, but the process that ran {name} has not within {} s: its name and its \
         TAP device are not free yet",
        time.as_secs()
    )]
    Lingers {
        /// The VM.
        name: String,
        /// How long it was waited for.
        time: std::time::Duration,
    },
    /// It said no.
    #[error("{0}")]
    Refused(String),
    /// It said something else than what the protocol has.
    #[error("{name} answers in a way this vmm-lite does not understand: {what}")]
    Protocol {
        /// The VM.
        name: String,
        /// What is wrong.
        what: String,
    },
}
