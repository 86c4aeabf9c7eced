//! The console: the rings in the control page on the guest's side, this process's standard streams and attached clients on the other.
//!
//! The guest is never made to wait for an attached client: those read from a bounded history and are told what they missed. Standard output
//! does hold the guest back when nobody reads it, as it would any program; what was not written yet then stays in the ring and moves with the guest.

use super::Violation;
use crate::memory::GuestRam;
use serde::{Deserialize, Serialize};
use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicBool,
            Ordering::{Acquire, Release, SeqCst},
        },
    },
    time::Duration,
};
use vmm_lite_interface::layout::{
    CONSOLE_IN, CONSOLE_IN_SIZE, CONSOLE_OUT, CONSOLE_OUT_SIZE, CONTROL_PAGE, PAGE_SIZE,
};

/// How much output is kept for those who attach later.
pub const HISTORY: usize = 64 << 10;
/// How much input is taken before the one who sends it has to wait.
const INPUT: usize = 4096;
/// What a pipe takes without blocking once poll says it is writable.
const CHUNK: usize = libc::PIPE_BUF;

/// The VMM's own counters of the two rings, which the guest cannot touch.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ConsoleState {
    /// Bytes ever taken from the output ring.
    pub out_tail: u32,
    /// Bytes ever put into the input ring.
    pub in_head: u32,
}

/// The rings, as the vCPU thread serves them.
#[derive(Debug, Default)]
pub struct Rings {
    state: ConsoleState,
}

/// How far [`Rings::drain`] got.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Drained {
    /// The ring is empty.
    All,
    /// Standard output takes no more for now.
    Blocked,
}

impl Rings {
    /// What moves.
    #[must_use]
    pub fn capture(&self) -> ConsoleState {
        self.state
    }

    /// Goes on where another VMM was.
    pub fn apply(&mut self, state: ConsoleState) {
        self.state = state;
    }

    /// Brings what the guest printed to `console`.
    ///
    /// # Errors
    /// A ring that claims to hold more than it can.
    pub fn drain(&mut self, ram: &GuestRam, console: &Console) -> Result<Drained, Violation> {
        let ring = &ram.control_page().console_out;
        let bytes = ring.head.load(Acquire).wrapping_sub(self.state.out_tail);
        if bytes == 0 {
            return Ok(Drained::All);
        }
        if bytes > CONSOLE_OUT_SIZE {
            return Err(Violation::ConsoleRing { ring: "output", bytes });
        }
        let mut buffer = [0; CONSOLE_OUT_SIZE as usize];
        let buffer = &mut buffer[..bytes as usize];
        for_each_part(self.state.out_tail, buffer.len(), CONSOLE_OUT_SIZE, |at, range| {
            ram.read(CONSOLE_OUT + at, &mut buffer[range]).expect("rings lie inside memory");
        });
        let written = console.print(buffer);
        self.state.out_tail = self.state.out_tail.wrapping_add(written as u32);
        ring.tail.store(self.state.out_tail, Release);
        mark_control(ram);
        Ok(if written == buffer.len() { Drained::All } else { Drained::Blocked })
    }

    /// Brings input to the guest; whether there was any, or its end.
    ///
    /// # Errors
    /// A ring that claims to hold more than it can.
    pub fn fill(&mut self, ram: &GuestRam, console: &Console) -> Result<bool, Violation> {
        if !console.has_input.load(SeqCst) {
            return Ok(false);
        }
        let control = ram.control_page();
        let ring = &control.console_in;
        let held = self.state.in_head.wrapping_sub(ring.tail.load(Acquire));
        if held > CONSOLE_IN_SIZE {
            return Err(Violation::ConsoleRing { ring: "input", bytes: held });
        }
        let mut input = console.input();
        let n = input.bytes.len().min((CONSOLE_IN_SIZE - held) as usize);
        let bytes: Vec<u8> = input.bytes.drain(..n).collect();
        for_each_part(self.state.in_head, n, CONSOLE_IN_SIZE, |at, range| {
            ram.write(CONSOLE_IN + at, &bytes[range]).expect("rings lie inside memory");
        });
        self.state.in_head = self.state.in_head.wrapping_add(n as u32);
        ring.head.store(self.state.in_head, Release);
        let ended =
            input.ended && input.bytes.is_empty() && control.console_in_eof.swap(1, SeqCst) == 0;
        mark_control(ram);
        if input.bytes.is_empty() {
            console.has_input.store(false, SeqCst);
        }
        console.input_taken.notify_all();
        Ok(n > 0 || ended)
    }
}

/// Calls `f` with the offset in the ring and the range of the buffer, for each of the one or two parts in which `len` bytes from counter `at` lie.
fn for_each_part(at: u32, len: usize, size: u32, mut f: impl FnMut(u64, std::ops::Range<usize>)) {
    let start = (at & (size - 1)) as usize;
    let first = len.min(size as usize - start);
    f(start as u64, 0..first);
    if first < len {
        f(0, first..len);
    }
}

fn mark_control(ram: &GuestRam) {
    ram.mark(CONTROL_PAGE, PAGE_SIZE as usize);
}

/// The other side of the rings, shared by the vCPU thread, whoever feeds input, and attached clients.
#[derive(Debug, Default)]
pub struct Console {
    output: Mutex<Output>,
    printed: Condvar,
    input: Mutex<Input>,
    has_input: AtomicBool,
    input_taken: Condvar,
}

#[derive(Debug, Default)]
struct Output {
    to: Option<OwnedFd>,
    history: VecDeque<u8>,
    /// Bytes ever printed; the history holds the last of them.
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
    /// How many bytes ended before it that are lost to this reader.
    pub missed: u64,
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Where to read on.
    pub next: u64,
}

impl Console {
    /// A console that prints to `to` as well as to its history.
    #[must_use]
    pub fn new(to: Option<OwnedFd>) -> Self {
        let console = Self::default();
        console.output().to = to;
        console
    }

    fn output(&self) -> MutexGuard<'_, Output> {
        self.output.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn input(&self) -> MutexGuard<'_, Input> {
        self.input.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Prints as much as can be without blocking; how much that was.
    fn print(&self, bytes: &[u8]) -> usize {
        let mut output = self.output();
        let written = match output.to.as_ref().map(|to| write_ready(to.as_fd(), bytes)) {
            Some(Ok(n)) => n,
            Some(Err(e)) => {
                tracing::info!("nobody reads the output any more: {e}");
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

    /// The descriptor that holds the guest back, to be polled for writing.
    #[must_use]
    pub fn blocked_on(&self) -> Option<i32> {
        self.output().to.as_ref().map(AsRawFd::as_raw_fd)
    }

    /// Says that nothing will be printed any more; readers see the end.
    pub fn close(&self) {
        self.output().closed = true;
        self.printed.notify_all();
        self.input().ended = true;
        self.input_taken.notify_all();
    }

    /// What was printed from byte number `from` on (0: as far back as the history goes), waiting for it at most `patience`.
    /// `None` when there will be no more.
    #[must_use]
    pub fn read(&self, from: u64, patience: Duration) -> Option<Piece> {
        let output = self.output();
        let (output, _) = self
            .printed
            .wait_timeout_while(output, patience, |o| o.total <= from && !o.closed)
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

    /// Bytes ever printed.
    #[must_use]
    pub fn printed(&self) -> u64 {
        self.output().total
    }

    /// Hands input to the guest, waiting while it takes none. The caller nudges the vCPU after each call. `false` when the console is closed.
    pub fn feed(&self, bytes: &[u8], mut nudge: impl FnMut()) -> bool {
        let mut rest = bytes;
        while !rest.is_empty() {
            let input = self.input();
            let mut input = self
                .input_taken
                .wait_while(input, |i| i.bytes.len() >= INPUT && !i.ended)
                .unwrap_or_else(PoisonError::into_inner);
            if input.ended {
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

    /// Says that no input will come any more.
    pub fn end_input(&self, nudge: impl FnOnce()) {
        self.input().ended = true;
        self.has_input.store(true, SeqCst);
        nudge();
    }

    /// Whether there is input for the guest that it has not been given.
    #[must_use]
    pub fn has_input(&self) -> bool {
        self.has_input.load(SeqCst)
    }
}

/// Writes what `to` takes without blocking, although the descriptor itself (which we share with others) may be a blocking one.
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
        // With an error or a hangup the write will say which.
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
    use std::io::Read;

    const NOW: Duration = Duration::ZERO;

    fn guest_prints(ram: &GuestRam, bytes: &[u8]) {
        let ring = &ram.control_page().console_out;
        let head = ring.head.load(Acquire);
        for (i, b) in bytes.iter().enumerate() {
            let at = u64::from(head.wrapping_add(i as u32) & (CONSOLE_OUT_SIZE - 1));
            ram.write(CONSOLE_OUT + at, &[*b]).unwrap();
        }
        ring.head.store(head.wrapping_add(bytes.len() as u32), Release);
    }

    #[test]
    fn output_comes_out_whole_over_the_end_of_the_ring() {
        let ram = GuestRam::new(2 << 20).unwrap();
        let (mut rings, console) = (Rings::default(), Console::new(None));
        let mut all = Vec::new();
        for round in 0..9_u8 {
            let line = vec![round; 3000];
            guest_prints(&ram, &line);
            assert_eq!(rings.drain(&ram, &console), Ok(Drained::All));
            all.extend(line);
        }
        assert_eq!(console.read(0, NOW).unwrap().bytes, all);
    }

    #[test]
    fn rings_that_lie_are_found_out() {
        let ram = GuestRam::new(2 << 20).unwrap();
        let (mut rings, console) = (Rings::default(), Console::new(None));
        ram.control_page().console_out.head.store(CONSOLE_OUT_SIZE + 1, Release);
        let lie = Violation::ConsoleRing { ring: "output", bytes: CONSOLE_OUT_SIZE + 1 };
        assert_eq!(rings.drain(&ram, &console), Err(lie));
        ram.control_page().console_in.tail.store(1, Release);
        console.feed(b"x", || {});
        assert!(matches!(rings.fill(&ram, &console), Err(Violation::ConsoleRing { .. })));
    }

    #[test]
    fn an_output_that_nobody_reads_stays_in_the_ring() {
        let ram = GuestRam::new(2 << 20).unwrap();
        let (mut reader, writer) = io::pipe().unwrap();
        let (mut rings, console) = (Rings::default(), Console::new(Some(writer.into())));
        let mut sent = 0;
        loop {
            guest_prints(&ram, &[7; 8192]);
            sent += 8192;
            if rings.drain(&ram, &console) == Ok(Drained::Blocked) {
                break;
            }
        }
        assert!(console.blocked_on().is_some());
        let mut got = 0;
        let mut buffer = [0; 65536];
        while got < sent {
            got += reader.read(&mut buffer).unwrap();
            rings.drain(&ram, &console).unwrap();
        }
        assert_eq!(got, sent);
    }

    #[test]
    fn input_waits_for_room_and_ends() {
        let ram = GuestRam::new(2 << 20).unwrap();
        let (mut rings, console) = (Rings::default(), Console::new(None));
        console.feed(&[1; INPUT], || {});
        assert_eq!(rings.fill(&ram, &console), Ok(true));
        console.feed(b"later", || {});
        assert_eq!(rings.fill(&ram, &console), Ok(false), "the ring is full");
        console.end_input(|| {});
        let control = ram.control_page();
        control.console_in.tail.store(control.console_in.head.load(Acquire), Release);
        assert_eq!(rings.fill(&ram, &console), Ok(true));
        assert_eq!(control.console_in_eof.load(Acquire), 1, "after the last byte");
        assert_eq!(rings.fill(&ram, &console), Ok(false), "the end is told once");
    }

    #[test]
    fn late_readers_learn_what_they_missed() {
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
