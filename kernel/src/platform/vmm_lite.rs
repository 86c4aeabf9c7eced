//! Under vmm-lite: one doorbell, and two rings of bytes for the console.

use core::{
    ptr,
    sync::atomic::{
        AtomicBool, AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
    },
};

use vmm_lite_interface::{
    control::ControlPage,
    doorbell::{Doorbell, PORT},
    layout::{CONSOLE_IN, CONSOLE_IN_SIZE, CONSOLE_OUT, CONSOLE_OUT_SIZE, SAMPLES, SAMPLES_END},
};

use super::{CONSOLE_READABLE, ConsoleRead};
use crate::{arch::port, time};

/// The pages of the console's rings and of the ring of samples.
pub const SHARED: [(usize, usize); 3] = [
    (SAMPLES as usize, SAMPLES_END as usize),
    (CONSOLE_OUT as usize, CONSOLE_OUT as usize + CONSOLE_OUT_SIZE as usize),
    (CONSOLE_IN as usize, CONSOLE_IN as usize + CONSOLE_IN_SIZE as usize),
];

/// How often a busy guest has the VMM poll the network when it has nothing to send itself, ns.
const POLL_EVERY: u64 = 1_000_000;

/// Whether the queues hold something that the VMM has not been notified of.
static NET_PENDING: AtomicBool = AtomicBool::new(false);
/// When the VMM last served the queues.
static NET_SERVED: AtomicU64 = AtomicU64::new(0);

fn ring(bell: Doorbell) {
    // SAFETY: the TSS opens the doorbell. What the VMM writes meanwhile (queues, rings, control
    // page) is shared with it and accessed as such; other memory may change host, but not content.
    unsafe { port::out32(PORT, bell.0) }
}

/// Notes that the queues have something for the VMM: it is notified at the next poll or wait.
pub fn notify_net() {
    NET_PENDING.store(true, Relaxed);
}

/// Has the VMM poll, if it is time.
pub fn poll(control: &ControlPage) {
    let now = time::last_ns();
    let listening = control.net_mmio.load(Relaxed) != 0 || !CONSOLE_READABLE.is_empty();
    let long_ago = now >= NET_SERVED.load(Relaxed) + POLL_EVERY;
    if NET_PENDING.load(Relaxed) || listening && long_ago {
        NET_PENDING.store(false, Relaxed);
        NET_SERVED.store(now, Relaxed);
        ring(Doorbell::NET);
    }
    wake_readers(control);
}

/// Waits at the doorbell.
pub fn idle(control: &ControlPage, deadline: Option<u64>) {
    control.wake_deadline_ns.store(deadline.unwrap_or(u64::MAX), Relaxed);
    NET_PENDING.store(false, Relaxed);
    ring(Doorbell::WAIT);
    NET_SERVED.store(time::now_ns(), Relaxed);
    wake_readers(control);
}

/// The guest is quiescent. Returns after the resume.
pub fn quiesced() {
    NET_PENDING.store(false, Relaxed);
    ring(Doorbell::QUIESCED);
}

/// Memory was reclaimed.
pub fn reclaimed() {
    ring(Doorbell::RECLAIMED);
}

/// The program ended.
pub fn exit(control: &ControlPage, code: i32) -> ! {
    control.exit_code.store(code, Relaxed);
    loop {
        ring(Doorbell::CONSOLE.union(Doorbell::NET).union(Doorbell::EXIT));
    }
}

/// The guest failed, and the report is filled.
pub fn fail() -> ! {
    loop {
        ring(Doorbell::CONSOLE.union(Doorbell::FAULT));
    }
}

/// Puts `bytes` into the output ring, and has the VMM print them.
pub fn console_write(control: &ControlPage, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let head = control.console_out.head.load(Relaxed);
        let room = CONSOLE_OUT_SIZE - head.wrapping_sub(control.console_out.tail.load(Acquire));
        let at = head & (CONSOLE_OUT_SIZE - 1);
        let piece = bytes.len().min(room.min(CONSOLE_OUT_SIZE - at) as usize);
        let to = ptr::with_exposed_provenance_mut::<u8>(CONSOLE_OUT as usize + at as usize);
        // SAFETY: inside the ring, which vmm-lite put there, and in its free part, which the VMM
        // does not read.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), to, piece) };
        control.console_out.head.store(head.wrapping_add(piece as u32), Release);
        bytes = &bytes[piece..];
        if bytes.is_empty() || piece as u32 == room {
            ring(Doorbell::CONSOLE);
        }
    }
}

/// Whether there is input, or its end.
pub fn console_readable(control: &ControlPage) -> bool {
    let ring = &control.console_in;
    ring.head.load(Acquire) != ring.tail.load(Relaxed) || control.console_in_eof.load(Acquire) != 0
}

/// Takes input from its ring.
pub fn console_read(control: &ControlPage, buffer: &mut [u8]) -> ConsoleRead {
    // In this order: what came before the end is seen before the end.
    let end = control.console_in_eof.load(Acquire) != 0;
    let head = control.console_in.head.load(Acquire);
    let tail = control.console_in.tail.load(Relaxed);
    let count = (head.wrapping_sub(tail) as usize).min(buffer.len());
    if count == 0 {
        return if end { ConsoleRead::End } else { ConsoleRead::Empty };
    }
    for (n, byte) in buffer[..count].iter_mut().enumerate() {
        let at = (tail.wrapping_add(n as u32) & (CONSOLE_IN_SIZE - 1)) as usize;
        let from = ptr::with_exposed_provenance::<u8>(CONSOLE_IN as usize + at);
        // SAFETY: inside the ring, and in its full part, which the VMM does not change.
        *byte = unsafe { from.read_volatile() };
    }
    control.console_in.tail.store(tail.wrapping_add(count as u32), Release);
    ConsoleRead::Bytes(count)
}

fn wake_readers(control: &ControlPage) {
    if !CONSOLE_READABLE.is_empty() && console_readable(control) {
        CONSOLE_READABLE.wake_all();
    }
}
