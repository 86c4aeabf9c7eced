//! Under QEMU's microvm: two 16550s, the TSC, exit devices. Idle spins until the LAPIC timer is wired.

use vmm_lite_interface::{
    control::{FaultKind, FaultReport},
    qemu::{CONSOLE_UART, EXIT_CODE_PORT, EXIT_PORT},
};

use super::ConsoleRead;
use crate::{arch::port, time};

pub fn init() {}

pub fn poll() {}

pub fn idle(deadline: Option<u64>) {
    if deadline.is_some_and(|at| at <= time::now_ns()) {
        return;
    }
    core::hint::spin_loop();
}

pub fn net_mmio() -> Option<usize> {
    None
}

pub fn console_write(bytes: &[u8]) {
    for &byte in bytes {
        // SAFETY: the first serial port's data register, which the TSS opens.
        unsafe { port::out8(CONSOLE_UART, byte) };
    }
}

pub fn console_read(buffer: &mut [u8]) -> ConsoleRead {
    let mut n = 0;
    // SAFETY: the first serial port's line status register, which the TSS opens.
    while n < buffer.len() && unsafe { port::in8(CONSOLE_UART + 5) } & 1 != 0 {
        // SAFETY: its data register, which has a byte.
        buffer[n] = unsafe { port::in8(CONSOLE_UART) };
        n += 1;
    }
    if n == 0 { ConsoleRead::Empty } else { ConsoleRead::Bytes(n) }
}

pub fn exit(code: u8) -> ! {
    loop {
        // SAFETY: QEMU's exit devices, which the TSS opens.
        unsafe {
            port::out8(EXIT_CODE_PORT, code);
            port::out8(EXIT_PORT, 0);
        }
    }
}

pub fn fail(report: &FaultReport) -> ! {
    use core::sync::atomic::Ordering::Relaxed;
    let kind = FaultKind::from_u32(report.kind.load(Relaxed)).unwrap_or(FaultKind::Kernel);
    crate::print!(
        "vmm-lite: {kind:?} at {:#x}, address {:#x}, thread {}\n",
        report.rip.load(Relaxed),
        report.address.load(Relaxed),
        report.thread.load(Relaxed)
    );
    exit(kind.exit_code() as u8)
}
