//! Under QEMU's microvm: two 16550s, virtio-mmio, LAPIC and IOAPIC, the TSC, and devices that end
//! QEMU.

mod apic;
mod clock;
mod virtio;

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

pub use virtio::{net_mmio, notify_net};

use vmm_lite_interface::{
    control::{FaultKind, FaultReport},
    qemu::{CONSOLE_UART, EXIT_CODE_PORT, EXIT_PORT, QUIESCE_UART},
};

use super::{CONSOLE_READABLE, ConsoleRead};
use crate::{arch, arch::port, drivers::uart::SerialPort, params, print, time};

/// Address of each window of device registers, and its size in bytes. Mapped before anything here
/// is used.
pub const DEVICES: [(usize, usize); 3] =
    [(virtio::BASE, virtio::SIZE), (apic::IO_BASE, 4096), (apic::LOCAL_BASE, 4096)];

/// Inputs of the IOAPIC.
const CONSOLE_PIN: u8 = 4;
const QUIESCE_PIN: u8 = 3;

/// How often a busy guest polls for interrupts, ns: a poll costs an exit.
const POLL_EVERY: u64 = 2_000_000;

static CONSOLE: SerialPort = SerialPort::new();
static QUIESCE: SerialPort = SerialPort::new();

/// How often the serial ports are polled without an interrupt, ns, and so how long a halt lasts at
/// most. Their interrupts are edges, and QEMU's IOAPIC on KVM loses one now and then; a poll costs
/// an exit.
const SERIAL_EVERY: u64 = 10_000_000;

static NEXT_POLL: AtomicU64 = AtomicU64::new(0);
static NEXT_SERIAL: AtomicU64 = AtomicU64::new(0);
static TIMER_RUNS: AtomicBool = AtomicBool::new(false);

/// Sets up the devices.
pub fn init() {
    apic::init();
    clock::init();
    // SAFETY: the first serial port, which the TSS opens, used by nothing else.
    unsafe { CONSOLE.open(CONSOLE_UART) };
    apic::connect(CONSOLE_PIN);
    if params::quiesce_over_uart() {
        // SAFETY: the second; likewise.
        unsafe { QUIESCE.open(QUIESCE_UART) };
        apic::connect(QUIESCE_PIN);
    }
    if let Some(pin) = virtio::init() {
        apic::connect(pin);
    }
}

/// Handles what came in, if the last poll was a while ago.
pub fn poll() {
    let now = time::last_ns();
    if now >= NEXT_POLL.load(Relaxed) {
        NEXT_POLL.store(now + POLL_EVERY, Relaxed);
        serve(apic::pending());
    }
}

/// Halts until an interrupt: a device's, or the timer's at `deadline`.
pub fn idle(deadline: Option<u64>) {
    match deadline.map_or(SERIAL_EVERY, |at| at.saturating_sub(time::now_ns())) {
        0 => return poll(),
        left => start_timer(left.min(SERIAL_EVERY)),
    }
    serve(halt());
}

fn start_timer(ns: u64) {
    apic::start_timer(ns);
    TIMER_RUNS.store(true, Relaxed);
}

fn stop_timer() {
    if TIMER_RUNS.swap(false, Relaxed) {
        apic::stop_timer();
    }
}

fn halt() -> apic::Lines {
    // SAFETY: the APICs are set up, so the timer or a device ends the halt; a
    // guest that waits for neither does not get here.
    unsafe { arch::halt() };
    apic::take()
}

/// Serves the devices that interrupted. What comes from now on will interrupt again.
fn serve(lines: apic::Lines) {
    let now = time::now_ns();
    let due = now >= NEXT_SERIAL.load(Relaxed);
    if due {
        NEXT_SERIAL.store(now + SERIAL_EVERY, Relaxed);
    }
    if (due || lines.has(CONSOLE_PIN)) && CONSOLE.receive() {
        CONSOLE_READABLE.wake_all();
    }
    if due || lines.has(QUIESCE_PIN) {
        QUIESCE.receive();
    }
    if virtio::pin().is_some_and(|pin| lines.has(pin)) {
        virtio::acknowledge();
    }
}

/// Prints.
pub fn console_write(bytes: &[u8]) {
    CONSOLE.send(bytes);
}

/// Reads what was typed. The port has no end.
pub fn console_read(buffer: &mut [u8]) -> ConsoleRead {
    match CONSOLE.take(buffer) {
        0 => ConsoleRead::Empty,
        count => ConsoleRead::Bytes(count),
    }
}

/// Whether something was typed.
pub fn console_readable() -> bool {
    CONSOLE.readable()
}

/// Whether there is something for [`quiesce_read`].
pub fn quiesce_readable() -> bool {
    QUIESCE.readable()
}

/// Reads from the port for quiesce requests.
pub fn quiesce_read(buffer: &mut [u8]) -> usize {
    QUIESCE.take(buffer)
}

/// Writes an answer to that port.
pub fn quiesce_write(bytes: &[u8]) {
    QUIESCE.send(bytes);
}

/// Halts until something arrives there. All else waits until [`serve_all`].
pub fn quiesce_wait() {
    while !QUIESCE.receive() {
        start_timer(SERIAL_EVERY);
        halt();
    }
    stop_timer();
}

/// Serves all devices: they may have interrupted during [`quiesce_wait`].
pub fn serve_all() {
    serve(apic::Lines::ALL);
}

/// Ends QEMU with the low byte of the code.
pub fn exit(code: i32) -> ! {
    // SAFETY: ports that the TSS opens, of devices that touch no memory.
    unsafe {
        port::out8(EXIT_CODE_PORT, code as u8);
        port::out8(EXIT_PORT, 0);
    }
    // The device is not there.
    loop {
        halt();
    }
}

/// Prints the report, as no VMM does here, and ends QEMU.
pub fn fail(report: &FaultReport) -> ! {
    let kind = FaultKind::from_u32(report.kind.load(Relaxed)).unwrap_or(FaultKind::Kernel);
    let what = match kind {
        FaultKind::WildAccess => "access to an address that is not mapped, or not for this",
        FaultKind::StackOverflow => "stack overflow",
        FaultKind::IllegalInstruction => "illegal instruction",
        FaultKind::Exception => "exception",
        FaultKind::Abort => "the program aborted",
        FaultKind::Kernel => "the kernel found itself broken",
        FaultKind::Deadlock => "every thread waits, and nothing could wake one",
    };
    print!(
        "vmm-lite: {what}: thread {}, vector {}, error code {:#x}, address {:#x}, rip {:#x}, \
         rsp {:#x}\n",
        report.thread.load(Relaxed),
        report.vector.load(Relaxed),
        report.error_code.load(Relaxed),
        report.address.load(Relaxed),
        report.rip.load(Relaxed),
        report.rsp.load(Relaxed),
    );
    for address in &report.backtrace[..report.backtrace_len.load(Relaxed) as usize] {
        print!("  {:#x}\n", address.load(Relaxed));
    }
    exit(kind.exit_code())
}
