//! The host's side of quiescing a guest over its second serial port (COM2, 0x2f8; boot parameter `quiesce=uart`).
//!
//! ```text
//! host                         guest
//! quiesce N          →
//!                    ←         quiesced N      hooks have run, queues are settled; it waits and changes nothing
//!      (any number of moves, pauses, snapshots)
//! resume N REASON    →                         REASON: the number of an interface `ResumeReason`
//!                    ←         resumed N       hooks have been told; it runs
//! ```
//! N is a decimal number that the host counts up. A guest that is asked again before it was resumed answers the newest
//! number. Lines end with `\n`. What a host that went away left half-written is dropped with the next `\n`.

use crate::lines::LineSocket;
use crate::{Error, Result};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};
use vmm_lite_interface::control::ResumeReason;

/// The line to one guest.
#[derive(Debug)]
pub struct QuiesceUart {
    lines: LineSocket,
}

impl QuiesceUart {
    pub(crate) fn new(stream: UnixStream) -> Self {
        Self { lines: LineSocket::new(stream, "the quiesce UART") }
    }

    /// Asks the guest to quiesce and waits until it has; returns how long that took.
    ///
    /// # Errors
    /// [`Error::Timeout`] if it does not answer.
    pub fn quiesce(&mut self, number: u32, timeout: Duration) -> Result<Duration> {
        self.ask(&format!("quiesce {number}"), &format!("quiesced {number}"), timeout)
    }

    /// Tells a quiescent guest to go on, and why; waits until it does; returns how long that took.
    ///
    /// # Errors
    /// [`Error::Timeout`] if it does not answer.
    pub fn resume(
        &mut self,
        number: u32,
        reason: ResumeReason,
        timeout: Duration,
    ) -> Result<Duration> {
        let ask = format!("resume {number} {}", reason as u32);
        self.ask(&ask, &format!("resumed {number}"), timeout)
    }

    fn ask(&mut self, line: &str, answer: &str, timeout: Duration) -> Result<Duration> {
        let asked = Instant::now();
        self.lines.send(line)?;
        match self.lines.receive(asked + timeout)? {
            Some(got) if got == answer => Ok(asked.elapsed()),
            Some(got) => Err(Error::Protocol {
                channel: "the quiesce UART",
                message: format!("`{got}` in answer to `{line}`"),
            }),
            None => Err(Error::Timeout {
                expected: format!("`{answer}` on the quiesce UART"),
                timeout,
                last_seen: self.lines.unfinished(),
            }),
        }
    }
}
