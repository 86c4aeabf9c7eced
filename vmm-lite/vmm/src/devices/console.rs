//! The console: rings in the control page on the guest's side, this process's standard streams and
//! attached clients on the other.
//!
//! The guest never waits for an attached client: clients read from a bounded history and are told
//! how much they missed. Standard output does block the guest while its reader is slow, as it would
//! any program; unwritten output then stays in the ring and is part of the VM's state.

mod rings;

pub use rings::{ConsoleState, Drained, Rings};

use super::throttle::HeldBack;
use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

/// How much output is kept for clients that attach later.
pub const HISTORY: usize = 64 << 10;
/// How much input is accepted before its sender has to wait.
const INPUT: usize = 4096;
/// What a pipe accepts without blocking once poll reports it writable.
const CHUNK: usize = libc::PIPE_BUF;

/// The other side of the rings, shared by the vCPU thread, input threads, and attached clients.
#[derive(Debug, Default)]
pub struct Console {
    output: Mutex<Output>,
    printed: Condvar,
    input: Mutex<Input>,
    has_input: AtomicBool,
    input_taken: Condvar,
    /// Output that had to wait because of the rate limit.
    pub(crate) held: HeldBack,
}

#[derive(Debug, Default)]
struct Output {
    to: Option<OwnedFd>,
    history: VecDeque<u8>,
    /// Bytes printed in total; the history holds the last of them.
    total: u64,
    closed: bool,
}

#[derive(Debug, Default)]
struct Input {
    bytes: VecDeque<u8>,
    ended: bool,
}

/// A piece of the console's output.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Piece {
    /// How many bytes before it are lost to this reader.
    pub missed: u64,
    /// The bytes.
    pub bytes: Vec<u8>,
    /// The position at which to read on.
    pub next: u64,
}

impl Console {
    /// A console that prints to `to` and to its history.
    #[must_use]
    pub fn new(to: Option<OwnedFd>) -> Self {
        let console = Self::default();
        console.output().to = to;
        console
    }

    /// From now on prints to `to` too.
    pub fn print_to(&self, to: OwnedFd) {
        self.output().to = Some(to);
    }

    /// From now on prints to its history only. Returns what it printed to.
    pub fn print_no_more(&self) -> Option<OwnedFd> {
        self.output().to.take()
    }

    fn output(&self) -> MutexGuard<'_, Output> {
        self.output.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn input(&self) -> MutexGuard<'_, Input> {
        self.input.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Prints as much as possible without blocking; returns how much.
    fn print(&self, bytes: &[u8]) -> usize {
        let mut output = self.output();
        let written = match output.to.as_ref().map(|to| write_ready(to.as_fd(), bytes)) {
            Some(Ok(n)) => n,
            Some(Err(e)) => {
                tracing::info!("the output has no reader any more: {e}");
                output.to = None;
                bytes.len()
            }
            None => bytes.len(),
        };
        if written > 0 {
            let bytes = &bytes[..written];
            output.total += written as u64;
            output.history.extend(&bytes[written.saturating_sub(HISTORY)..]);
            let too_many = output.history.len().saturating_sub(HISTORY);
            output.history.drain(..too_many);
            self.printed.notify_all();
        }
        written
    }

    /// Prints all of it, and waits while the reader accepts none.
    fn print_all(&self, mut bytes: &[u8]) {
        loop {
            bytes = &bytes[self.print(bytes)..];
            let Some(output) = self.blocked_on().filter(|_| !bytes.is_empty()) else { return };
            let mut poll = libc::pollfd { fd: output, events: libc::POLLOUT, revents: 0 };
            // SAFETY: one valid entry. After any outcome it is tried again.
            unsafe { libc::poll(&raw mut poll, 1, -1) };
        }
    }

    /// The descriptor whose reader the guest waits for, to be polled for writing.
    #[must_use]
    pub fn blocked_on(&self) -> Option<i32> {
        self.output().to.as_ref().map(AsRawFd::as_raw_fd)
    }

    /// Ends the output: nothing more will be printed, and readers see the end.
    pub fn close(&self) {
        self.output().closed = true;
        self.printed.notify_all();
        self.input().ended = true;
        self.input_taken.notify_all();
    }

    /// What was printed from byte number `from` on (0: as far back as the history goes); waits for
    /// it at most `timeout`. `None` after the end of the output.
    #[must_use]
    pub fn read(&self, from: u64, timeout: Duration) -> Option<Piece> {
        let output = self.output();
        let (output, _) = self
            .printed
            .wait_timeout_while(output, timeout, |o| o.total <= from && !o.closed)
            .unwrap_or_else(PoisonError::into_inner);
        if output.total <= from && output.closed {
            return None;
        }
        let oldest = output.total - output.history.len() as u64;
        let start = from.clamp(oldest, output.total);
        let skip = (start - oldest) as usize;
        let bytes = output.history.iter().skip(skip).copied().collect();
        Some(Piece { missed: start.saturating_sub(from), bytes, next: output.total })
    }

    /// Bytes printed in total.
    #[must_use]
    pub fn printed(&self) -> u64 {
        self.output().total
    }

    /// Passes input to the guest, and waits while it accepts none. The caller nudges the vCPU after
    /// each call. `false` when the console is closed.
    pub fn feed(&self, bytes: &[u8], nudge: impl FnMut()) -> bool {
        self.feed_unless(bytes, &AtomicBool::new(false), nudge)
    }

    /// As [`feed`](Self::feed); stops, and returns `false`, when `gone` is set. After setting it
    /// call [`look_again`](Self::look_again).
    pub fn feed_unless(&self, bytes: &[u8], gone: &AtomicBool, mut nudge: impl FnMut()) -> bool {
        let mut rest = bytes;
        while !rest.is_empty() {
            let input = self.input();
            let mut input = self
                .input_taken
                .wait_while(input, |i| i.bytes.len() >= INPUT && !i.ended && !gone.load(SeqCst))
                .unwrap_or_else(PoisonError::into_inner);
            if input.ended || gone.load(SeqCst) {
                return false;
            }
            let n = rest.len().min(INPUT - input.bytes.len());
            input.bytes.extend(&rest[..n]);
            rest = &rest[n..];
            self.has_input.store(true, SeqCst);
            drop(input);
            nudge();
        }
        true
    }

    /// Wakes all threads in [`feed_unless`](Self::feed_unless), so that they check `gone`.
    pub fn look_again(&self) {
        // Locked, so that no thread is between its check and its wait.
        let _input = self.input();
        self.input_taken.notify_all();
    }

    /// Ends the input: no more will come.
    pub fn end_input(&self, nudge: impl FnOnce()) {
        self.input().ended = true;
        self.input_taken.notify_all();
        self.has_input.store(true, SeqCst);
        nudge();
    }

    /// Whether there is input that the guest has not got yet.
    #[must_use]
    pub fn has_input(&self) -> bool {
        self.has_input.load(SeqCst)
    }
}

/// Writes what `to` accepts without blocking, although the descriptor itself (which other processes
/// may share) may be a blocking one.
fn write_ready(to: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    let mut written = 0;
    while written < bytes.len() && is_writable(to)? {
        let chunk = &bytes[written..bytes.len().min(written + CHUNK)];
        // SAFETY: a valid buffer of that length; the result is checked.
        let n = unsafe { libc::write(to.as_raw_fd(), chunk.as_ptr().cast(), chunk.len()) };
        if n >= 0 {
            written += n as usize;
            continue;
        }
        match io::Error::last_os_error() {
            e if e.kind() == io::ErrorKind::WouldBlock => break,
            e if e.kind() == io::ErrorKind::Interrupted => {}
            e => return Err(e),
        }
    }
    Ok(written)
}

fn is_writable(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
    // SAFETY: one valid entry; the result is checked.
    match unsafe { libc::poll(&raw mut poll, 1, 0) } {
        // After an error or a hangup the write returns which one it was.
        n if n >= 0 => Ok(poll.revents != 0),
        _ => match io::Error::last_os_error() {
            e if e.kind() == io::ErrorKind::Interrupted => Ok(false),
            e => Err(e),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::ZERO;

    #[test]
    fn late_readers_learn_how_much_they_missed() {
        let console = Console::new(None);
        assert_eq!(console.print(&[1; HISTORY]), HISTORY);
        console.print(&[2; 100]);
        let piece = console.read(50, NOW).unwrap();
        assert_eq!(
            (piece.missed, piece.bytes.len(), piece.next),
            (50, HISTORY, HISTORY as u64 + 100)
        );
        console.close();
        assert_eq!(console.read(piece.next, NOW), None);
    }
}
