//! The control page and the console's rings, as a guest may leave them, and the state of their
//! devices, as a peer may send it.
//!
//! Input: the page's bytes as writes of words, between calls of everything that reads it.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use crate::memory::{MEMORY, with_ram};
use arbitrary::{Arbitrary, Unstructured};
use vmm::{
    devices::{
        clock::{Clock, ClockState},
        console::{Console, ConsoleState, Drained, HISTORY, Rings},
    },
    memory::{PAGE, Writable},
    vm::{End, GuestFault},
};
use vmm_lite_interface::{
    control::ControlPage,
    layout::{CONSOLE_IN, CONSOLE_IN_SIZE, CONSOLE_OUT_SIZE, CONTROL_PAGE, IMAGE_BASE, PAGE_SIZE},
};

/// More steps cover nothing new.
const STEPS: usize = 64;

#[derive(Arbitrary, Debug)]
enum Step {
    Word { at: u16, value: u64 },
    Small { at: u16, value: u16 },
    Memory { page: u16, value: u64 },
    DontCare { address: u32, len: u16 },
    Printed(u16),
    Drain,
    Input(Vec<u8>),
    EndOfInput,
    Fill,
    Rings { out_tail: u32, in_head: u32 },
    Fault,
    Wait,
    Clock { mono_ns: u64, wall_offset_ns: u64, away_ns: u64 },
}

/// Whatever the page contains: no reader panics, none accepts an impossible value, and none writes
/// anywhere but to its ring and the page.
pub fn check(data: &[u8]) {
    with_ram(|ram| drive(data, ram));
}

fn drive(data: &[u8], ram: Writable<'_>) {
    let mut input = Unstructured::new(data);
    let console = Console::new(None);
    let mut machine = Machine {
        ram,
        console,
        rings: Rings::default(),
        clock: Clock::start(2_600_000_000),
        ended: false,
    };
    for _ in 0..STEPS {
        match input.arbitrary() {
            Ok(step) if !input.is_empty() => machine.step(step),
            _ => break,
        }
    }
    machine.everything();
}

struct Machine<'r> {
    ram: Writable<'r>,
    console: Console,
    rings: Rings,
    clock: Clock,
    /// The input has ended, and accepts no more.
    ended: bool,
}

impl Machine<'_> {
    fn control(&self) -> &ControlPage {
        self.ram.control_page()
    }

    fn step(&mut self, step: Step) {
        let in_page =
            |at: u16, size: usize| CONTROL_PAGE + u64::from(at) % (PAGE - size + 1) as u64;
        match step {
            Step::Word { at, value } => self.write(in_page(at & !7, 8), &value.to_le_bytes()),
            Step::Small { at, value } => {
                self.write(in_page(at & !3, 4), &u32::from(value).to_le_bytes())
            }
            Step::Memory { page, value } => {
                let page = u64::from(page) % (MEMORY / PAGE_SIZE);
                self.write(page * PAGE_SIZE, &value.to_le_bytes());
            }
            Step::DontCare { address, len } => {
                self.control().page_hints.store(u64::from(address) << 4, Relaxed);
                self.control().page_hints_len.store(len.into(), Relaxed);
            }
            Step::Printed(bytes) => {
                let head = self.rings.capture().out_tail.wrapping_add(bytes.into());
                self.control().console_out.head.store(head, Relaxed);
            }
            Step::Drain => self.drain(),
            Step::Input(bytes) => {
                // As much as is accepted without waiting for the guest.
                if !self.ended && !self.console.has_input() {
                    self.console.feed(&bytes[..bytes.len().min(4096)], || {});
                }
            }
            Step::EndOfInput => {
                self.ended = true;
                self.console.end_input(|| {});
            }
            Step::Fill => self.fill(),
            Step::Rings { out_tail, in_head } => {
                self.rings.apply(ConsoleState { out_tail, in_head })
            }
            Step::Fault => self.fault(),
            Step::Wait => self.wait(),
            Step::Clock { mono_ns, wall_offset_ns, away_ns } => {
                self.clock
                    .apply(ClockState { mono_ns, wall_offset_ns }, Duration::from_nanos(away_ns));
                let now = self.clock.now();
                assert!(now >= mono_ns, "the guest's clock went back");
                assert!(self.clock.now() >= now);
                assert!(self.clock.published().mono_base_ns >= mono_ns);
            }
        }
        self.page_hints();
    }

    fn everything(&mut self) {
        self.drain();
        self.fill();
        self.fault();
        self.wait();
        self.page_hints();
    }

    fn write(&self, at: u64, bytes: &[u8]) {
        self.ram.write(at, bytes).expect("inside memory");
    }

    fn memory(&self) -> Vec<u8> {
        let mut memory = vec![0; (IMAGE_BASE / 16) as usize];
        self.ram.read(0, &mut memory).expect("inside memory");
        memory
    }

    /// Runs `f`, after which only the page and `ring` may have changed.
    fn only_in<T>(&mut self, ring: std::ops::Range<u64>, f: impl FnOnce(&mut Self) -> T) -> T {
        let before = self.memory();
        let out = f(self);
        let page = CONTROL_PAGE..CONTROL_PAGE + PAGE_SIZE;
        let after = self.memory();
        for (n, (was, is)) in before.chunks(PAGE).zip(after.chunks(PAGE)).enumerate() {
            let at = n as u64 * PAGE_SIZE;
            let may = page.contains(&at) || ring.contains(&at);
            assert!(was == is || may, "page {at:#x} was written");
        }
        out
    }

    fn drain(&mut self) {
        let (before, printed) = (self.rings.capture().out_tail, self.console.printed());
        let claimed = self.control().console_out.head.load(Relaxed).wrapping_sub(before);
        let drained = self.only_in(0..0, |m| m.rings.drain(m.ram, &m.console));
        assert_eq!(drained.is_ok(), claimed <= CONSOLE_OUT_SIZE);
        let got = if matches!(drained, Ok(Drained::All)) { claimed } else { 0 };
        assert_eq!(self.console.printed() - printed, u64::from(got));
        assert_eq!(self.rings.capture().out_tail, before.wrapping_add(got));
        let history = self.console.read(0, Duration::ZERO).map_or(0, |piece| piece.bytes.len());
        assert!(history <= HISTORY);
    }

    fn fill(&mut self) {
        let (before, asked) = (self.rings.capture().in_head, self.console.has_input());
        let tail = self.control().console_in.tail.load(Relaxed);
        let held = before.wrapping_sub(tail);
        let ring = CONSOLE_IN..CONSOLE_IN + u64::from(CONSOLE_IN_SIZE);
        let filled = self.only_in(ring, |m| m.rings.fill(m.ram, &m.console));
        assert_eq!(filled.is_ok(), !asked || held <= CONSOLE_IN_SIZE);
        let put = self.rings.capture().in_head.wrapping_sub(before);
        assert!(put == 0 || held + put <= CONSOLE_IN_SIZE, "more than there is room for");
    }

    fn fault(&self) {
        let fault = GuestFault::copy(&self.control().fault);
        assert!(fault.backtrace.len() <= self.control().fault.backtrace.len());
        assert!([132, 134, 139].contains(&fault.exit_code()) && !fault.what().is_empty());
        assert!(!End::Failed(fault).to_string().is_empty());
    }

    fn wait(&self) {
        let deadline = self.control().wake_deadline_ns.load(Relaxed);
        match self.clock.until(deadline) {
            None => assert_eq!(deadline, u64::MAX),
            Some(left) => assert!(left <= deadline),
        }
    }

    fn page_hints(&self) {
        let control = self.control();
        let pages = self.ram.page_hints(control);
        let first = (IMAGE_BASE / PAGE_SIZE) as usize;
        let (at, len) = (control.page_hints.load(Relaxed), control.page_hints_len.load(Relaxed));
        for page in pages.iter() {
            let start = page as u64 * PAGE_SIZE;
            assert!((first..self.ram.pages()).contains(&page), "a page that is not the guest's");
            assert!(start + PAGE_SIZE <= at || start >= at + len, "a page of the bitmap itself");
            let mut byte = [0];
            self.ram.read(at + page as u64 / 8, &mut byte).expect("the bitmap lies inside memory");
            assert!(byte[0] >> (page % 8) & 1 == 1, "a page that the guest did not name");
        }
    }
}
