//! Under vmm-lite: one doorbell.

use core::sync::atomic::{AtomicBool, Ordering};

use vmm_lite_interface::{
    control::ControlPage,
    doorbell::{Doorbell, PORT},
};

use super::CONSOLE_READABLE;
use crate::arch::port;

/// Whether the network queues have something that the VMM has not been told of.
static NET_PENDING: AtomicBool = AtomicBool::new(false);

/// Rings.
pub fn ring(bell: Doorbell) {
    // SAFETY: the doorbell serves queues and rings, whose memory is the kernel's and shared as the VMM expects.
    unsafe { port::out32(PORT, bell.0) }
}

/// Remembers that queues have work.
pub fn notify_net() {
    NET_PENDING.store(true, Ordering::Relaxed);
}

/// Has the VMM serve the queues both ways.
pub fn poll() {
    NET_PENDING.store(false, Ordering::Relaxed);
    ring(Doorbell::NET);
}

/// Waits at the doorbell.
pub fn idle(control: &ControlPage, deadline: Option<u64>) {
    control.wake_deadline_ns.store(deadline.unwrap_or(u64::MAX), Ordering::Relaxed);
    NET_PENDING.store(false, Ordering::Relaxed);
    ring(Doorbell::WAIT);
    let ring = &control.console_in;
    if ring.head.load(Ordering::Relaxed) != ring.tail.load(Ordering::Relaxed)
        || control.console_in_eof.load(Ordering::Relaxed) != 0
    {
        CONSOLE_READABLE.wake_all();
    }
}

/// The program ended.
pub fn exit(control: &ControlPage, code: i32) -> ! {
    control.exit_code.store(code, Ordering::Relaxed);
    loop {
        ring(Doorbell::CONSOLE.union(Doorbell::EXIT));
    }
}

/// The guest failed; the report is filled.
pub fn fail() -> ! {
    loop {
        ring(Doorbell::CONSOLE.union(Doorbell::FAULT));
    }
}
