//! Errors between this crate and QEMU.

use std::io;
use std::time::Duration;

/// The result of every fallible function here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error, with its context.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// QEMU could not be started at all.
    #[error("{program} could not be started: {source}; Debian has it in qemu-system-x86")]
    Start {
        /// The program.
        program: String,
        /// The cause.
        source: io::Error,
    },
    /// QEMU ended while an event was expected of it.
    #[error("QEMU ended ({status}) before {expected}; its messages: {messages}")]
    Ended {
        /// Exit status as the operating system reports it.
        status: String,
        /// The expected event.
        expected: String,
        /// What QEMU wrote to its standard error.
        messages: String,
    },
    /// An event did not happen in time.
    #[error("no {expected} within {timeout:?}; last seen: {last_seen:?}")]
    Timeout {
        /// The expected event.
        expected: String,
        /// The timeout.
        timeout: Duration,
        /// The last output instead.
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
        /// QEMU's own message.
        description: String,
    },
    /// A message that the protocol does not have at this point.
    #[error("unexpected on {channel}: {message}")]
    Protocol {
        /// The channel.
        channel: &'static str,
        /// The message.
        message: String,
    },
    /// A migration ended without the guest at the destination.
    #[error("QEMU's migration ended as `{status}`: {description}")]
    Migration {
        /// `query-migrate`'s status.
        status: String,
        /// QEMU's own message, if there is one.
        description: String,
    },
    /// Reading, writing, or setting up a channel failed.
    #[error("{what}: {source}")]
    Io {
        /// The operation.
        what: &'static str,
        /// The cause.
        source: io::Error,
    },
}

impl Error {
    /// For `map_err`: adds the operation.
    pub(crate) fn io(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, source }
    }
}
