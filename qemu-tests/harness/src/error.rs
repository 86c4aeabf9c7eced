//! What can go wrong between this crate and QEMU.

use std::io;
use std::time::Duration;

/// The result of everything here that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, and with what in hand.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// QEMU could not be started at all.
    #[error("{program} could not be started: {source}; Debian has it in qemu-system-x86")]
    Start {
        /// What was to be run.
        program: String,
        /// Why it was not.
        source: io::Error,
    },
    /// QEMU ended while something was expected of it.
    #[error("QEMU ended ({status}) before {expected}; its messages: {messages}")]
    Ended {
        /// Exit status as the operating system gives it.
        status: String,
        /// What was waited for.
        expected: String,
        /// What QEMU wrote to its standard error.
        messages: String,
    },
    /// Something did not happen in time.
    #[error("no {expected} within {timeout:?}; last seen: {last_seen:?}")]
    Timeout {
        /// What was waited for.
        expected: String,
        /// How long.
        timeout: Duration,
        /// The last that came instead.
        last_seen: String,
    },
    /// A stream ended while more was expected of it.
    #[error("{0} was closed")]
    Closed(&'static str),
    /// QEMU refused a command.
    #[error("QMP command `{command}`: {class}: {description}")]
    Command {
        /// The command.
        command: String,
        /// QMP's error class.
        class: String,
        /// QEMU's own words.
        description: String,
    },
    /// Something was said that the protocol does not have at this point.
    #[error("unexpected on {channel}: {message}")]
    Protocol {
        /// Where.
        channel: &'static str,
        /// What.
        message: String,
    },
    /// A migration ended in another way than with the guest at the destination.
    #[error("QEMU's migration ended as `{status}`: {description}")]
    Migration {
        /// `query-migrate`'s status.
        status: String,
        /// QEMU's own words, if it had any.
        description: String,
    },
    /// Reading, writing, or setting up a channel failed.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

impl Error {
    /// For `map_err`: adds what was being done.
    pub(crate) fn io(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, source }
    }
}
