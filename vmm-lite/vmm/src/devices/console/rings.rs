//! The rings in the control page, served by the vCPU thread.

use super::Console;
use crate::{
    devices::{
        Violation,
        gate::Gate,
        inputs::Unlike,
        rate::Rate,
        throttle::{NetRate, Throttle},
    },
    memory::Writable,
};
use migrate::input_log::Console as Inputs;
use serde::{Deserialize, Serialize};
use std::{
    sync::{
        Arc,
        atomic::Ordering::{Acquire, Release, SeqCst},
    },
    time::{Duration, Instant},
};
use vmm_lite_interface::layout::{
    CONSOLE_IN, CONSOLE_IN_SIZE, CONSOLE_OUT, CONSOLE_OUT_SIZE, CONTROL_PAGE, PAGE_SIZE,
};

/// The VMM's own counters of the two rings, which the guest cannot change.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ConsoleState {
    /// Bytes taken from the output ring in total.
    pub out_tail: u32,
    /// Bytes put into the input ring in total.
    pub in_head: u32,
}

/// The rings and their counters.
#[derive(Debug, Default)]
pub struct Rings {
    state: ConsoleState,
    throttle: Throttle,
    /// At which the output waits.
    gate: Option<Arc<Gate>>,
    /// What happened since it was last asked, while the guest is recorded.
    recording: Option<Inputs>,
}

/// How far [`Rings::drain`] got.
#[derive(Clone, Debug)]
pub enum Drained {
    /// The ring is empty.
    All,
    /// Standard output accepts no more for now.
    Blocked,
    /// The guest exceeds its output rate: the rest has to wait this long.
    Held(Duration),
    /// The output has to wait until this gate opens.
    AtGate(Arc<Gate>),
}

impl Rings {
    /// The counters to capture.
    #[must_use]
    pub fn capture(&self) -> ConsoleState {
        self.state
    }

    /// Continues from captured counters.
    pub fn apply(&mut self, state: ConsoleState) {
        self.state = state;
    }

    /// Limits the output to the console to this many bytes per second from now on.
    pub fn limit(&mut self, rate: Option<Rate>) {
        self.throttle = Throttle::new(NetRate { bytes: rate, packets: None });
    }

    /// Moves the guest's output to `console`, as much as its rate permits.
    ///
    /// # Errors
    /// A ring that claims to hold more than its size.
    pub fn drain(&mut self, ram: Writable<'_>, console: &Console) -> Result<Drained, Violation> {
        let ring = &ram.control_page().console_out;
        let bytes = ring.head.load(Acquire).wrapping_sub(self.state.out_tail);
        if bytes == 0 {
            return Ok(Drained::All);
        }
        if bytes > CONSOLE_OUT_SIZE {
            return Err(Violation::ConsoleRing { ring: "output", bytes });
        }
        match &self.gate {
            // The VM ends, and what it prints is not in its log.
            Some(gate) if gate.is_closed() => return Ok(Drained::All),
            Some(gate) if !gate.is_open() => return Ok(Drained::AtGate(Arc::clone(gate))),
            _ => {}
        }
        let now = Instant::now();
        let may = u32::try_from(self.throttle.bytes(now)).unwrap_or(u32::MAX);
        if may == 0 {
            return Ok(Drained::Held(self.throttle.hold(now, &console.held)));
        }
        let mut buffer = [0; CONSOLE_OUT_SIZE as usize];
        let buffer = &mut buffer[..bytes.min(may) as usize];
        for_each_part(self.state.out_tail, buffer.len(), CONSOLE_OUT_SIZE, |at, range| {
            ram.read(CONSOLE_OUT + at, &mut buffer[range]).expect("rings lie inside memory");
        });
        let written = console.print(buffer);
        self.state.out_tail = self.state.out_tail.wrapping_add(written as u32);
        ring.tail.store(self.state.out_tail, Release);
        mark_control(ram);
        if written > 0 {
            self.throttle.passed(written, now, &console.held);
            if let Some(recording) = &mut self.recording {
                recording.taken += written as u32;
            }
        }
        Ok(if written < buffer.len() {
            Drained::Blocked
        } else if buffer.len() < bytes as usize {
            Drained::Held(self.throttle.hold(now, &console.held))
        } else {
            Drained::All
        })
    }

    /// Moves input to the guest; returns whether there was any, or its end.
    ///
    /// # Errors
    /// A ring that claims to hold more than its size.
    pub fn fill(&mut self, ram: Writable<'_>, console: &Console) -> Result<bool, Violation> {
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
        let ended =
            input.ended && input.bytes.is_empty() && control.console_in_eof.load(SeqCst) == 0;
        self.give(ram, &bytes, ended);
        if let Some(recording) = &mut self.recording {
            recording.given.extend(&bytes);
            recording.ended |= ended;
        }
        if input.bytes.is_empty() {
            console.has_input.store(false, SeqCst);
        }
        console.input_taken.notify_all();
        Ok(n > 0 || ended)
    }
}

impl Rings {
    /// Puts input into its ring, which has room for it.
    fn give(&mut self, ram: Writable<'_>, bytes: &[u8], ended: bool) {
        for_each_part(self.state.in_head, bytes.len(), CONSOLE_IN_SIZE, |at, range| {
            ram.write(CONSOLE_IN + at, &bytes[range]).expect("rings lie inside memory");
        });
        self.state.in_head = self.state.in_head.wrapping_add(bytes.len() as u32);
        let control = ram.control_page();
        control.console_in.head.store(self.state.in_head, Release);
        if ended {
            control.console_in_eof.store(1, SeqCst);
        }
        mark_control(ram);
    }

    /// Lets the output wait at this gate, or at none.
    pub fn wait_at(&mut self, gate: Option<Arc<Gate>>) {
        self.gate = gate;
    }

    /// Begins to note what happens, anew; or no longer does.
    pub fn record(&mut self, on: bool) {
        self.recording = on.then(Inputs::default);
    }

    /// What happened since the last call, while the guest is recorded.
    pub fn take_inputs(&mut self) -> Inputs {
        self.recording.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Takes and gives what a recorded console did; waits for the reader of the output.
    ///
    /// # Errors
    /// [`Unlike`].
    pub fn replay(
        &mut self,
        inputs: &Inputs,
        ram: Writable<'_>,
        console: &Console,
    ) -> Result<(), Unlike> {
        let control = ram.control_page();
        let queued = control.console_out.head.load(Acquire).wrapping_sub(self.state.out_tail);
        if inputs.taken > queued || inputs.taken > CONSOLE_OUT_SIZE {
            return Err(Unlike::PrintedLess);
        }
        if inputs.taken > 0 {
            let mut bytes = vec![0; inputs.taken as usize];
            for_each_part(self.state.out_tail, bytes.len(), CONSOLE_OUT_SIZE, |at, range| {
                ram.read(CONSOLE_OUT + at, &mut bytes[range]).expect("rings lie inside memory");
            });
            console.print_all(&bytes);
            self.state.out_tail = self.state.out_tail.wrapping_add(inputs.taken);
            control.console_out.tail.store(self.state.out_tail, Release);
            mark_control(ram);
        }
        if inputs.given.is_empty() && !inputs.ended {
            return Ok(());
        }
        let held = self.state.in_head.wrapping_sub(control.console_in.tail.load(Acquire));
        if u64::from(held) + inputs.given.len() as u64 > u64::from(CONSOLE_IN_SIZE) {
            return Err(Unlike::NoRoomForInput);
        }
        self.give(ram, &inputs.given, inputs.ended);
        Ok(())
    }
}

/// Calls `f` with the offset in the ring and the range of the buffer, for each of the one or two
/// parts that `len` bytes from counter `at` on occupy.
fn for_each_part(at: u32, len: usize, size: u32, mut f: impl FnMut(u64, std::ops::Range<usize>)) {
    let start = (at & (size - 1)) as usize;
    let first = len.min(size as usize - start);
    f(start as u64, 0..first);
    if first < len {
        f(0, first..len);
    }
}

fn mark_control(ram: Writable<'_>) {
    ram.mark(CONTROL_PAGE, PAGE_SIZE as usize);
}

#[cfg(test)]
mod tests {
    use super::{super::INPUT, *};
    use crate::memory::GuestRam;
    use std::{
        io::{self, Read},
        time::Duration,
    };

    const NOW: Duration = Duration::ZERO;

    fn guest_prints(ram: Writable<'_>, bytes: &[u8]) {
        let ring = &ram.control_page().console_out;
        let head = ring.head.load(Acquire);
        for (i, b) in bytes.iter().enumerate() {
            let at = u64::from(head.wrapping_add(i as u32) & (CONSOLE_OUT_SIZE - 1));
            ram.write(CONSOLE_OUT + at, &[*b]).unwrap();
        }
        ring.head.store(head.wrapping_add(bytes.len() as u32), Release);
    }

    #[test]
    fn output_that_wraps_around_the_ring_is_complete() {
        let ram = GuestRam::new(2 << 20).unwrap();
        let (mut rings, console) = (Rings::default(), Console::new(None));
        let mut all = Vec::new();
        for round in 0..9_u8 {
            let line = vec![round; 3000];
            guest_prints(ram.writable_while_stopped(), &line);
            assert!(matches!(
                rings.drain(ram.writable_while_stopped(), &console),
                Ok(Drained::All)
            ));
            all.extend(line);
        }
        assert_eq!(console.read(0, NOW).unwrap().bytes, all);
    }

    #[test]
    fn impossible_ring_counters_are_violations() {
        let ram = GuestRam::new(2 << 20).unwrap();
        let (mut rings, console) = (Rings::default(), Console::new(None));
        ram.control_page().console_out.head.store(CONSOLE_OUT_SIZE + 1, Release);
        let lie = Violation::ConsoleRing { ring: "output", bytes: CONSOLE_OUT_SIZE + 1 };
        assert_eq!(rings.drain(ram.writable_while_stopped(), &console).unwrap_err(), lie);
        ram.control_page().console_in.tail.store(1, Release);
        console.feed(b"x", || {});
        assert!(matches!(
            rings.fill(ram.writable_while_stopped(), &console),
            Err(Violation::ConsoleRing { .. })
        ));
    }

    #[test]
    fn unread_output_stays_in_the_ring() {
        let ram = GuestRam::new(2 << 20).unwrap();
        let (mut reader, writer) = io::pipe().unwrap();
        let (mut rings, console) = (Rings::default(), Console::new(Some(writer.into())));
        let mut sent = 0;
        loop {
            guest_prints(ram.writable_while_stopped(), &[7; 8192]);
            sent += 8192;
            if let Ok(Drained::Blocked) = rings.drain(ram.writable_while_stopped(), &console) {
                break;
            }
        }
        assert!(console.blocked_on().is_some());
        let mut got = 0;
        let mut buffer = [0; 65536];
        while got < sent {
            got += reader.read(&mut buffer).unwrap();
            rings.drain(ram.writable_while_stopped(), &console).unwrap();
        }
        assert_eq!(got, sent);
    }

    #[test]
    fn input_waits_for_room_and_ends() {
        let ram = GuestRam::new(2 << 20).unwrap();
        let (mut rings, console) = (Rings::default(), Console::new(None));
        console.feed(&[1; INPUT], || {});
        assert_eq!(rings.fill(ram.writable_while_stopped(), &console), Ok(true));
        console.feed(b"later", || {});
        assert_eq!(
            rings.fill(ram.writable_while_stopped(), &console),
            Ok(false),
            "the ring is full"
        );
        console.end_input(|| {});
        let control = ram.control_page();
        control.console_in.tail.store(control.console_in.head.load(Acquire), Release);
        assert_eq!(rings.fill(ram.writable_while_stopped(), &console), Ok(true));
        assert_eq!(control.console_in_eof.load(Acquire), 1, "after the last byte");
        assert_eq!(
            rings.fill(ram.writable_while_stopped(), &console),
            Ok(false),
            "the end is reported once"
        );
    }
}
