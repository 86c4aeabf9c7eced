//! Errors of the lab.

use std::{io, path::PathBuf};

/// Result of a lab operation.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of the lab, worded for the person who runs the test.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call failed.
    #[error("{what}: {source}")]
    Io {
        /// The operation.
        what: String,
        /// The cause.
        source: io::Error,
    },
    /// A command failed.
    #[error("`{command}` failed ({status}): {stderr}")]
    Command {
        /// The command line.
        command: String,
        /// How it ended.
        status: String,
        /// Its standard error.
        stderr: String,
    },
    /// An event did not happen in time.
    #[error("no {what} within {seconds} s; the process said:\n{output}")]
    Timeout {
        /// The expected event.
        what: String,
        /// The timeout.
        seconds: u64,
        /// The end of the output of the awaited process.
        output: String,
    },
    /// A program is not installed or not built.
    #[error("{program} is missing ({hint})")]
    Missing {
        /// Its name.
        program: String,
        /// How to get it.
        hint: String,
    },
    /// This user lacks a privilege that the lab needs.
    #[error("{0}")]
    Privilege(String),
    /// A peer broke the protocol.
    #[error("{what}: {said}")]
    Protocol {
        /// The exchange.
        what: String,
        /// The peer's answer.
        said: String,
    },
    /// A file does not exist.
    #[error("{} is missing", .0.display())]
    NoFile(PathBuf),
}

/// Names the operation when a system call failed.
pub trait Doing<T> {
    /// Adds `what` to the error.
    ///
    /// # Errors
    /// The error of `self`, with the name.
    fn doing(self, what: impl Into<String>) -> Result<T>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, what: impl Into<String>) -> Result<T> {
        self.map_err(|source| Error::Io { what: what.into(), source })
    }
}

impl<T> Doing<T> for nix::Result<T> {
    fn doing(self, what: impl Into<String>) -> Result<T> {
        self.map_err(|e| Error::Io { what: what.into(), source: e.into() })
    }
}
