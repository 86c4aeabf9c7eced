//! What can go wrong in the lab.

use std::{io, path::PathBuf};

/// Result of a lab operation.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of the lab, in words for whoever runs the test.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call failed.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// A command could not do its work.
    #[error("`{command}` failed ({status}): {stderr}")]
    Command {
        /// The command line.
        command: String,
        /// How it ended.
        status: String,
        /// What it said.
        stderr: String,
    },
    /// Something did not happen in time.
    #[error("no {what} within {seconds} s; the process said:\n{output}")]
    Timeout {
        /// What was waited for.
        what: String,
        /// For how long.
        seconds: u64,
        /// The end of the output of the process waited for.
        output: String,
    },
    /// A program is not installed or not built.
    #[error("{program} is not there ({hint})")]
    Missing {
        /// Its name.
        program: String,
        /// How to get it.
        hint: String,
    },
    /// This user may not do what the lab needs.
    #[error("{0}")]
    Privilege(String),
    /// A peer said something else than expected.
    #[error("{what}: {said}")]
    Protocol {
        /// In which exchange.
        what: String,
        /// What it said.
        said: String,
    },
    /// A file that should be there is not.
    #[error("{} is missing", .0.display())]
    NoFile(PathBuf),
}

/// Names what was being done when a system call failed.
pub trait Doing<T> {
    /// Adds `what` to the error.
    ///
    /// # Errors
    /// The error of `self`, named.
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
