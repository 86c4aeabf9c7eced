//! The devices of the same image under QEMU (`-M microvm`): fixed ports, and the lines that quiesce
//! the guest.
//!
//! # Exit
//! The guest writes its exit code as one byte to [`EXIT_CODE_PORT`] (`isa-debugcon`), then any byte
//! to [`EXIT_PORT`] (`isa-debug-exit`), which ends QEMU. The second alone would lose the code's
//! upper bit, and could not tell a code of 0 from a failure of QEMU's own. Where a device is
//! missing, the write has no effect: halt after it.
//!
//! # Quiesce
//! With the boot parameter `quiesce=uart` the guest listens on the second serial port,
//! [`QUIESCE_UART`]:
//!
//! ```text
//! host                         guest
//! quiesce N          →
//!                    ←         quiesced N      hooks have run, queues are settled; it waits and changes nothing
//!      (any number of moves and pauses)
//! resume N REASON    →                         REASON: the number of a [`ResumeReason`](crate::control::ResumeReason)
//!                    ←         resumed N       hooks have been told; it runs
//! ```
//! N is decimal and fits `u32`; the host counts it up. Lines end with `\n`. Any other line is
//! ignored. A guest that is asked to quiesce while it is quiescent answers the new number and stays
//! quiescent.

use crate::control::ResumeReason;
use core::fmt;

/// First serial port (16550): the console.
pub const CONSOLE_UART: u16 = 0x3f8;
/// Second serial port (16550), IRQ 3: quiesce requests.
pub const QUIESCE_UART: u16 = 0x2f8;
/// `isa-debugcon`: receives the exit code, one byte.
pub const EXIT_CODE_PORT: u16 = 0xe9;
/// `isa-debug-exit`: a byte written here ends QEMU.
pub const EXIT_PORT: u16 = 0xf4;

/// Requests of the host on [`QUIESCE_UART`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Request {
    /// `quiesce N`.
    Quiesce(u32),
    /// `resume N REASON`.
    Resume(u32, ResumeReason),
}

impl Request {
    /// Parses a line without its end; `None` if it is not a request.
    #[must_use]
    pub fn parse(line: &[u8]) -> Option<Self> {
        let mut words = str::from_utf8(line).ok()?.split(' ');
        let (verb, number) = (words.next()?, words.next()?.parse().ok()?);
        let request = match verb {
            "quiesce" => Self::Quiesce(number),
            "resume" => Self::Resume(number, ResumeReason::from_u32(words.next()?.parse().ok()?)?),
            _ => return None,
        };
        words.next().is_none().then_some(request)
    }
}

impl fmt::Display for Request {
    /// The line, with its end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Quiesce(number) => writeln!(f, "quiesce {number}"),
            Self::Resume(number, reason) => writeln!(f, "resume {number} {}", *reason as u32),
        }
    }
}

/// Answers of the guest there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// `quiesced N`.
    Quiesced(u32),
    /// `resumed N`.
    Resumed(u32),
}

impl fmt::Display for Answer {
    /// The line, with its end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Quiesced(number) => writeln!(f, "quiesced {number}"),
            Self::Resumed(number) => writeln!(f, "resumed {number}"),
        }
    }
}

/// Longest line that can be a request, without its end.
const LINE_MAX: usize = 32;

/// Builds requests from the bytes of the port. A line that is not a request, or is too long for
/// one, is dropped.
#[derive(Debug)]
pub struct Line {
    bytes: [u8; LINE_MAX],
    /// Above [`LINE_MAX`] while a line that is too long has not ended.
    length: usize,
}

impl Line {
    /// An empty line.
    #[must_use]
    pub const fn new() -> Self {
        Self { bytes: [0; LINE_MAX], length: 0 }
    }

    /// Adds one byte; returns the request that it completes, if any.
    pub fn push(&mut self, byte: u8) -> Option<Request> {
        if byte == b'\n' {
            let length = core::mem::take(&mut self.length);
            return Request::parse(self.bytes.get(..length)?);
        }
        if let Some(place) = self.bytes.get_mut(self.length) {
            *place = byte;
        }
        self.length = (self.length + 1).min(LINE_MAX + 1);
        None
    }
}

impl Default for Line {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::{format, vec::Vec};

    fn requests(bytes: &[u8]) -> Vec<Request> {
        let mut line = Line::new();
        bytes.iter().filter_map(|&b| line.push(b)).collect()
    }

    #[test]
    fn requests_survive_their_lines() {
        let all = [
            Request::Quiesce(0),
            Request::Quiesce(u32::MAX),
            Request::Resume(7, ResumeReason::Migrated),
            Request::Resume(u32::MAX, ResumeReason::TakenOver),
        ];
        let text: Vec<u8> = all.iter().flat_map(|r| format!("{r}").into_bytes()).collect();
        assert_eq!(requests(&text), all);
    }

    #[test]
    fn invalid_lines_are_dropped() {
        for junk in [
            "",
            "quiesce",
            "quiesce ",
            "quiesce x",
            "quiesce 1 2",
            "quiesce 4294967296",
            "resume 1",
            "resume 1 99",
            "resume 1 2 3",
            "Quiesce 1",
            "quiesce 1 and a line that goes on and on",
            "\u{ff}\u{0}",
        ] {
            assert_eq!(requests(format!("{junk}\nquiesce 5\n").as_bytes()), [Request::Quiesce(5)]);
        }
        assert_eq!(requests(&[0xff, 0xfe, b'\n']), []);
    }
}
