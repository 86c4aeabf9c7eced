//! The status of a guest that runs `apps/dirtier`: whether its memory is intact, and how long it
//! did not run.

use crate::{Error, Result};
use serde::Deserialize;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

/// An answer of the status port.
#[derive(Clone, Debug, Deserialize)]
pub struct Status {
    /// Drawn when the program started: the same number means the same run.
    pub nonce: String,
    /// Pages it rewrites.
    pub pages: u64,
    /// How often it has rewritten all of them.
    pub passes: u64,
    /// Pages with a wrong content.
    pub errors: u64,
    /// Its rate in the last second.
    pub pages_per_second: u64,
    /// Time since it started, by its own clock.
    pub uptime_ns: u64,
    /// The longest time between two pages since the last reset: the blackout as the guest saw it.
    pub max_gap_ns: u64,
    /// The latest of the longer gaps.
    pub recent_gaps: Vec<Gap>,
}

/// A gap between two pages.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Gap {
    /// When it ended, by the program's clock.
    pub at_ns: u64,
    /// How long it was.
    pub gap_ns: u64,
}

/// A connection to the status port.
#[derive(Debug)]
pub struct StatusPort {
    stream: BufReader<TcpStream>,
}

impl StatusPort {
    /// Uses a connection, which needs a read timeout.
    #[must_use]
    pub fn new(stream: TcpStream) -> Self {
        Self { stream: BufReader::new(stream) }
    }

    /// The current counters.
    ///
    /// # Errors
    /// [`Error::Io`] if the guest does not answer, [`Error::Protocol`] if it answers something
    /// else.
    pub fn status(&mut self) -> Result<Status> {
        self.ask("status\n")
    }

    /// Resets the gaps seen so far.
    ///
    /// # Errors
    /// As [`status`](Self::status).
    pub fn reset(&mut self) -> Result<Status> {
        self.ask("reset\n")
    }

    fn ask(&mut self, question: &str) -> Result<Status> {
        const CHANNEL: &str = "dirtier's status port";
        self.stream.get_mut().write_all(question.as_bytes()).map_err(Error::io(CHANNEL))?;
        let mut line = String::new();
        if self.stream.read_line(&mut line).map_err(Error::io(CHANNEL))? == 0 {
            return Err(Error::Closed(CHANNEL));
        }
        serde_json::from_str(&line)
            .map_err(|e| Error::Protocol { channel: CHANNEL, message: format!("{e} in {line}") })
    }
}
