//! One TCP connection: the bytes read and not sent back yet.

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;

/// Whether a connection can continue after [`Connection::pump`].
pub enum State {
    Open,
    Closed,
}

/// A connection and its unsent bytes, usually none.
pub struct Connection {
    stream: TcpStream,
    pending: Vec<u8>,
    ended: bool,
}

impl Connection {
    pub fn new(stream: TcpStream) -> Self {
        Self { stream, pending: Vec::new(), ended: false }
    }

    /// Does everything possible without waiting, and registers at `registry` for the event that it
    /// then waits for. An error ends only this connection.
    pub fn pump(&mut self, registry: &Registry, token: Token, buffer: &mut [u8]) -> State {
        let was_blocked = !self.pending.is_empty();
        match self.run(buffer) {
            Ok(State::Open) => {}
            Ok(State::Closed) | Err(_) => return State::Closed,
        }
        let blocked = !self.pending.is_empty();
        if blocked != was_blocked {
            let interest = if blocked { Interest::WRITABLE } else { Interest::READABLE };
            if registry.reregister(&mut self.stream, token, interest).is_err() {
                return State::Closed;
            }
        }
        State::Open
    }

    fn run(&mut self, buffer: &mut [u8]) -> io::Result<State> {
        loop {
            let pending = std::mem::take(&mut self.pending);
            let sent = self.write(&pending)?;
            if sent < pending.len() {
                self.pending = pending[sent..].to_vec();
                return Ok(State::Open);
            }
            if self.ended {
                self.stream.shutdown(Shutdown::Write)?;
                return Ok(State::Closed);
            }
            match self.stream.read(buffer) {
                Ok(0) => self.ended = true,
                Ok(n) => {
                    let sent = self.write(&buffer[..n])?;
                    self.pending.extend_from_slice(&buffer[sent..n]);
                    if sent < n {
                        return Ok(State::Open);
                    }
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(State::Open),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Sends as much as the socket accepts. Returns how much that was.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut sent = 0;
        while sent < bytes.len() {
            match self.stream.write(&bytes[sent..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(n) => sent += n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(sent)
    }
}
