//! Lines from a socket, with a deadline that loses no data.

use crate::{Error, Result};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// No correct peer sends a longer line.
const MAX_LINE: usize = 4 << 20;

/// A socket that carries lines both ways.
#[derive(Debug)]
pub struct LineSocket {
    stream: UnixStream,
    /// For error messages.
    name: &'static str,
    buffer: Vec<u8>,
    /// Length of the part of `buffer` known to contain no newline.
    searched: usize,
}

impl LineSocket {
    pub fn new(stream: UnixStream, name: &'static str) -> Self {
        Self { stream, name, buffer: Vec::new(), searched: 0 }
    }

    /// Sends `line` and a newline, in one write.
    pub fn send(&mut self, line: &str) -> Result<()> {
        self.stream.write_all(format!("{line}\n").as_bytes()).map_err(|source| {
            match source.kind() {
                ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => Error::Closed(self.name),
                _ => Error::Io { what: self.name, source },
            }
        })
    }

    /// The next line without its end, or `None` if it is not complete at `deadline`; the incomplete
    /// part is kept.
    pub fn receive(&mut self, deadline: Instant) -> Result<Option<String>> {
        loop {
            if let Some(at) = self.buffer[self.searched..].iter().position(|&b| b == b'\n') {
                let rest = self.buffer.split_off(self.searched + at + 1);
                let line = std::mem::replace(&mut self.buffer, rest);
                self.searched = 0;
                return Ok(Some(String::from_utf8_lossy(&line).trim_end().to_owned()));
            }
            self.searched = self.buffer.len();
            if self.buffer.len() > MAX_LINE {
                return Err(Error::Protocol {
                    channel: self.name,
                    message: format!("a line of more than {MAX_LINE} bytes"),
                });
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            // Less than a microsecond would round to zero, which means no timeout at all.
            self.stream
                .set_read_timeout(Some(left.max(Duration::from_micros(1))))
                .map_err(Error::io("socket timeout"))?;
            let mut chunk = [0; 16 * 1024];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(Error::Closed(self.name)),
                Ok(n) => self.buffer.extend_from_slice(&chunk[..n]),
                Err(e) => match e.kind() {
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => {}
                    ErrorKind::ConnectionReset => return Err(Error::Closed(self.name)),
                    _ => return Err(Error::Io { what: self.name, source: e }),
                },
            }
        }
    }

    /// The beginning of an incomplete line.
    pub fn unfinished(&self) -> String {
        String::from_utf8_lossy(&self.buffer).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    #[test]
    fn a_line_in_pieces_survives_a_deadline_in_between() {
        let (mut there, here) = UnixStream::pair().unwrap();
        let mut lines = LineSocket::new(here, "test");
        there.write_all(b"one\ntw").unwrap();
        assert_eq!(lines.receive(soon()).unwrap().as_deref(), Some("one"));
        assert_eq!(lines.receive(Instant::now() + Duration::from_millis(5)).unwrap(), None);
        assert_eq!(lines.unfinished(), "tw");
        there.write_all(b"o\r\n\n").unwrap();
        assert_eq!(lines.receive(soon()).unwrap().as_deref(), Some("two"));
        assert_eq!(lines.receive(soon()).unwrap().as_deref(), Some(""));
        drop(there);
        assert!(matches!(lines.receive(soon()), Err(Error::Closed("test"))));
        assert!(matches!(lines.send("x"), Err(Error::Closed("test"))));
    }
}
