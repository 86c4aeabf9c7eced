//! The host's side of quiescing a guest over its second serial port; [`vmm_lite_interface::qemu`]
//! defines the lines.

use crate::lines::LineSocket;
use crate::{Error, Result};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};
use vmm_lite_interface::control::ResumeReason;
use vmm_lite_interface::qemu::{Answer, Request};

/// The connection to one guest.
#[derive(Debug)]
pub struct QuiesceUart {
    lines: LineSocket,
}

impl QuiesceUart {
    pub(crate) fn new(stream: UnixStream) -> Self {
        Self { lines: LineSocket::new(stream, "the quiesce UART") }
    }

    /// Asks the guest to quiesce and waits until it has. Returns how long that took.
    ///
    /// # Errors
    /// [`Error::Timeout`] if it does not answer.
    pub fn quiesce(&mut self, number: u32, timeout: Duration) -> Result<Duration> {
        self.ask(Request::Quiesce(number), Answer::Quiesced(number), timeout)
    }

    /// Resumes a quiescent guest with a reason, and waits until it answers. Returns how long that
    /// took.
    ///
    /// # Errors
    /// [`Error::Timeout`] if it does not answer.
    pub fn resume(
        &mut self,
        number: u32,
        reason: ResumeReason,
        timeout: Duration,
    ) -> Result<Duration> {
        self.ask(Request::Resume(number, reason), Answer::Resumed(number), timeout)
    }

    fn ask(&mut self, request: Request, answer: Answer, timeout: Duration) -> Result<Duration> {
        let (line, answer) = (request.to_string(), answer.to_string());
        let answer = answer.trim_end();
        let asked = Instant::now();
        self.lines.send(line.trim_end())?;
        match self.lines.receive(asked + timeout)? {
            Some(got) if got == answer => Ok(asked.elapsed()),
            Some(got) => Err(Error::Protocol {
                channel: "the quiesce UART",
                message: format!("`{got}` in answer to `{}`", line.trim_end()),
            }),
            None => Err(Error::Timeout {
                expected: format!("`{answer}` on the quiesce UART"),
                timeout,
                last_seen: self.lines.unfinished(),
            }),
        }
    }
}
