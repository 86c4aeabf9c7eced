//! Under QEMU's microvm: two 16550s, virtio-mmio, LAPIC and IOAPIC, the TSC, and devices that end QEMU.

mod apic;
mod clock;
mod uart;
mod virtio;

use core::sync::atomic::Ordering::Relaxed;

pub use uart::{console_read, console_readable, console_write, quiesce_byte, quiesce_write};
pub use virtio::{net_mmio, notify_net};

use vmm_lite_interface::{
    control::{FaultKind, FaultReport},
    qemu::{EXIT_CODE_PORT, EXIT_PORT},
};

use super::CONSOLE_READABLE;
use crate::{arch, arch::port, params, print, time};

/// Address of each window of device registers, and its size in bytes. Mapped before anything here is used.
pub const DEVICES: [(usize, usize); 3] =
    [(virtio::BASE, virtio::SIZE), (apic::IO_BASE, 4096), (apic::LOCAL_BASE, 4096)];

/// Sets up the devices.
pub fn init() {
    apic::init();
    clock::init();
    uart::init(params::quiesce_over_uart());
    virtio::init();
}

/// Looks at what came in.
pub fn poll() {
    if !CONSOLE_READABLE.is_empty() && console_readable() {
        CONSOLE_READABLE.wake_all();
    }
}

/// Halts until an interrupt: a device's, or the timer's at `deadline`.
pub fn idle(deadline: Option<u64>) {
    poll();
    if !CONSOLE_READABLE.is_empty() && console_readable() {
        return;
    }
    match deadline {
        Some(at) => {
            let Some(left) = at.checked_sub(time::now_ns()).filter(|ns| *ns > 0) else { return };
            apic::start_timer(left);
        }
        None => apic::stop_timer(),
    }
    // SAFETY: the APICs are set up, so the timer or a device ends the halt; who waits for neither is not let get here.
    unsafe { arch::halt() };
    virtio::acknowledge();
    apic::end_of_interrupt();
    poll();
}

/// Ends QEMU. The code reaches it as far as a byte holds it.
pub fn exit(code: i32) -> ! {
    // SAFETY: ports that the TSS opens, of devices that touch no memory.
    unsafe {
        port::out8(EXIT_CODE_PORT, code as u8);
        port::out8(EXIT_PORT, 0);
    }
    // The device is not there.
    loop {
        // SAFETY: nothing runs any more that could wait for an interrupt in vain.
        unsafe { arch::halt() };
    }
}

/// Prints the report, as nobody else does here, and ends QEMU.
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
        "vmm-lite: {what}: thread {}, vector {}, error code {:#x}, address {:#x}, rip {:#x}, rsp {:#x}\n",
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
