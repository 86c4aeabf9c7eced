//! One connection: input that is not a complete request yet, and output that could not be sent yet.
//! Both are usually empty, and then use no memory.

use crate::commands::{self, Context, State};
use crate::protocol::parser::Limits;
use crate::protocol::{Parsed, Parser, Reply};
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;

/// Replies are sent once there are this many bytes of them, if not before.
const SEND_AT: usize = 64 << 10;
/// With this many bytes to send, no more requests are accepted from the client until some are sent.
const PAUSE_AT: usize = 1 << 20;
/// How much is read at once: input behind a request that has to wait must be kept.
const READ_AT_ONCE: usize = 64 << 10;
/// The same three limits when memory is short: then clients wait rather than their replies.
const SEND_AT_SHORT: usize = 4 << 10;
const PAUSE_AT_SHORT: usize = 0;
const READ_AT_ONCE_SHORT: usize = 4 << 10;
/// How often one client is read from before the others follow.
const READS_PER_TURN: usize = 16;
/// An unused buffer larger than this frees its memory.
const KEEP: usize = 4 << 10;
/// How much of a client's input is read and dropped after its connection has ended, so that it
/// receives the reason.
const LINGER: usize = 1 << 20;

/// Buffers that connections share, one at a time.
#[derive(Debug)]
pub struct Scratch {
    input: Box<[u8]>,
    output: Vec<u8>,
}

impl Scratch {
    /// Buffers for one connection at a time.
    #[must_use]
    pub fn new() -> Self {
        Self {
            input: vec![0; READ_AT_ONCE].into_boxed_slice(),
            output: Vec::with_capacity(SEND_AT),
        }
    }
}

/// What to do with a connection after its turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Turn {
    /// It waits for an event.
    Waits,
    /// It has more to do and needs another turn.
    Again,
    /// It has ended.
    Ended,
}

/// A connection.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    parser: Parser,
    input: Vec<u8>,
    output: Vec<u8>,
    sent: usize,
    interest: Interest,
    read_at_once: usize,
    send_at: usize,
    pause_at: usize,
    /// No more input is accepted; the connection ends when all output is sent.
    closing: bool,
}

impl Connection {
    /// A connection that is registered for reading.
    #[must_use]
    pub fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            parser: Parser::default(),
            input: Vec::new(),
            output: Vec::new(),
            sent: 0,
            interest: Interest::READABLE,
            read_at_once: READ_AT_ONCE,
            send_at: SEND_AT,
            pause_at: PAUSE_AT,
            closing: false,
        }
    }

    fn unsent(&self) -> usize {
        self.output.len() - self.sent
    }

    /// Whether so much output waits that no more requests are accepted.
    fn is_paused(&self) -> bool {
        self.unsent() > self.pause_at
    }

    /// Does everything possible without waiting. An error ends only this connection.
    pub fn turn(
        &mut self,
        state: &mut State,
        number: usize,
        now: u64,
        scratch: &mut Scratch,
        registry: &Registry,
    ) -> Turn {
        let turn = self.work(state, number, now, scratch);
        scratch.output.clear();
        match turn {
            Ok(Turn::Ended) | Err(_) => Turn::Ended,
            Ok(turn) => match self.ask_for_events(registry, number) {
                Ok(()) => turn,
                Err(_) => Turn::Ended,
            },
        }
    }

    /// Sends the client a text, as far as possible without waiting, before its connection ends.
    pub fn say_goodbye(&mut self, text: &str) {
        // The connection ends either way.
        let _ = self.stream.write(text.as_bytes());
    }

    fn work(
        &mut self,
        state: &mut State,
        number: usize,
        now: u64,
        scratch: &mut Scratch,
    ) -> io::Result<Turn> {
        if self.unsent() > 0 {
            self.send_rest(state)?;
        }
        (self.read_at_once, self.send_at, self.pause_at) = if state.memory.is_tight() {
            (READ_AT_ONCE_SHORT, SEND_AT_SHORT, PAUSE_AT_SHORT)
        } else {
            (READ_AT_ONCE, SEND_AT, PAUSE_AT.min(state.memory.share_of_one_client() / 4))
        };
        if !self.closing && !self.is_paused() && !self.input.is_empty() {
            // Input left over when the client was paused.
            let input = std::mem::take(&mut self.input);
            let consumed = self.execute(&input, state, number, now, &mut scratch.output)?;
            self.input = input;
            self.consume(consumed);
        }
        let mut reads = 0;
        while !self.closing && !self.is_paused() {
            if reads == READS_PER_TURN {
                self.send(state, &mut scratch.output)?;
                return Ok(Turn::Again);
            }
            reads += 1;
            match self.read(scratch) {
                Ok(0) => self.closing = true,
                Ok(n) => {
                    state.stats.input += n as u64;
                    self.take(n, state, number, now, scratch)?;
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        self.send(state, &mut scratch.output)?;
        if self.closing && self.unsent() == 0 {
            self.end(scratch);
            return Ok(Turn::Ended);
        }
        Ok(Turn::Waits)
    }

    fn read(&mut self, scratch: &mut Scratch) -> io::Result<usize> {
        self.stream.read(&mut scratch.input[..self.read_at_once])
    }

    /// Takes `n` bytes that have been read: executes complete requests in them, keeps the rest.
    fn take(
        &mut self,
        n: usize,
        state: &mut State,
        number: usize,
        now: u64,
        scratch: &mut Scratch,
    ) -> io::Result<()> {
        let fresh = &scratch.input[..n];
        if self.input.is_empty() {
            let consumed = self.execute(fresh, state, number, now, &mut scratch.output)?;
            if !self.closing {
                self.keep(&fresh[consumed..], state)?;
            }
            return Ok(());
        }
        self.keep(fresh, state)?;
        let input = std::mem::take(&mut self.input);
        let consumed = self.execute(&input, state, number, now, &mut scratch.output)?;
        self.input = input;
        self.consume(consumed);
        Ok(())
    }

    /// Appends to an incomplete request. Without memory for it, disconnects the client.
    fn keep(&mut self, bytes: &[u8], state: &mut State) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        // Makes room for a long string at once.
        let wanted = self.parser.wanted().max(self.input.len() + bytes.len());
        if wanted > self.input.capacity() {
            make_room(&mut self.input, wanted, state)?;
        }
        self.input.extend_from_slice(bytes);
        Ok(())
    }

    fn consume(&mut self, bytes: usize) {
        self.input.drain(..bytes);
        if self.input.is_empty() && self.input.capacity() > KEEP {
            self.input = Vec::new();
        }
    }

    /// Executes the requests at the start of `input`. Returns how many bytes that took.
    fn execute(
        &mut self,
        input: &[u8],
        state: &mut State,
        number: usize,
        now: u64,
        out: &mut Vec<u8>,
    ) -> io::Result<usize> {
        let share = state.memory.share_of_one_client();
        let limits = Limits { string: state.config.max_string, request: share };
        let max_output = state.config.max_output.unwrap_or(share);
        let mut context = Context { state, client: number, now };
        context.session().active = now;
        let mut consumed = 0;
        while !self.closing {
            if out.len() >= self.send_at {
                self.send(context.state, out)?;
                if self.is_paused() {
                    break;
                }
            }
            let resp3 = context.session().resp3;
            let mut reply = Reply::new(out, max_output, resp3);
            let rest = &input[consumed..];
            consumed += match self.parser.parse(rest, limits) {
                Ok(Parsed::Incomplete) => break,
                Ok(Parsed::Request(length)) => {
                    commands::execute(&mut context, self.parser.args(rest), &mut reply);
                    length
                }
                Ok(Parsed::Nothing(length) | Parsed::Discarded(length)) => length,
                Ok(Parsed::TooLarge(length)) => {
                    commands::refuse_too_large(&mut context, &mut reply);
                    length
                }
                Err(error) => {
                    reply.error(&format!("ERR {error}"));
                    self.closing = true;
                    break;
                }
            };
            if reply.overflowed() {
                return Err(ErrorKind::OutOfMemory.into());
            }
            self.closing |= context.session().close;
        }
        Ok(consumed)
    }

    /// Sends the replies in `out`; keeps what the socket does not accept.
    fn send(&mut self, state: &mut State, out: &mut Vec<u8>) -> io::Result<()> {
        if self.unsent() > 0 {
            // Earlier replies wait already; these are queued behind them.
            let wanted = self.output.len() + out.len();
            make_room(&mut self.output, wanted, state)?;
            self.output.extend_from_slice(out);
            out.clear();
            return self.send_rest(state);
        }
        let mut sent = 0;
        while sent < out.len() {
            match self.stream.write(&out[sent..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(n) => sent += n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        state.stats.output += sent as u64;
        if sent < out.len() {
            make_room(&mut self.output, out.len() - sent, state)?;
            self.output.extend_from_slice(&out[sent..]);
            self.sent = 0;
        }
        out.clear();
        if out.capacity() > 4 * SEND_AT {
            *out = Vec::with_capacity(SEND_AT);
        }
        Ok(())
    }

    /// Sends waiting replies, as far as possible.
    fn send_rest(&mut self, state: &mut State) -> io::Result<()> {
        while self.sent < self.output.len() {
            match self.stream.write(&self.output[self.sent..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(n) => {
                    self.sent += n;
                    state.stats.output += n as u64;
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    // Frees the room of sent replies from time to time.
                    if self.sent > self.output.len() / 2 {
                        self.output.drain(..self.sent);
                        self.sent = 0;
                    }
                    return Ok(());
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        self.output = Vec::new();
        self.sent = 0;
        Ok(())
    }

    /// Registers for the events that it waits for now. Readiness is reported once, so it registers
    /// only for events that it will handle fully.
    fn ask_for_events(&mut self, registry: &Registry, number: usize) -> io::Result<()> {
        let interest = match self.unsent() {
            0 => Interest::READABLE,
            _ if self.closing || self.is_paused() => Interest::WRITABLE,
            _ => Interest::READABLE | Interest::WRITABLE,
        };
        if interest != self.interest {
            registry.reregister(&mut self.stream, Token(number), interest)?;
            self.interest = interest;
        }
        Ok(())
    }

    /// Ends the connection so that the client receives the last reply: unread input would turn the
    /// end into a reset.
    fn end(&mut self, scratch: &mut Scratch) {
        let mut dropped = 0;
        if self.stream.shutdown(Shutdown::Write).is_ok() {
            while let Ok(n @ 1..) = self.stream.read(&mut scratch.input) {
                dropped += n;
                if dropped > LINGER {
                    break;
                }
            }
        }
    }

    /// Ends its registration.
    pub fn deregister(&mut self, registry: &Registry) {
        // A selector that has seen the end has done it already.
        let _ = registry.deregister(&mut self.stream);
    }
}

/// Makes room for `wanted` bytes in total, if there is memory for it.
fn make_room(buffer: &mut Vec<u8>, wanted: usize, state: &mut State) -> io::Result<()> {
    let more = wanted.saturating_sub(buffer.capacity());
    if more > 0
        && !(state.memory.allows_buffer(more) && buffer.try_reserve(wanted - buffer.len()).is_ok())
    {
        return Err(ErrorKind::OutOfMemory.into());
    }
    Ok(())
}
