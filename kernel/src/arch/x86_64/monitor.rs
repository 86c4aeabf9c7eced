//! The monitor's code, and how to call it.

use core::arch::{asm, global_asm};
use vmm_lite_interface::note::{OWN_CLOCK_SIZE, OWN_CLOCK_TYPE, OwnClockNote};

global_asm!(
    include_str!("monitor.s"),
    CALL = const CALL,
    DOORBELL = const vmm_lite_interface::doorbell::PORT,
    INTERFACE_VERSION = const vmm_lite_interface::INTERFACE_VERSION,
    MIN_FREE_KIB = const MIN_FREE_KIB,
    OWN_CLOCK_SIZE = const OWN_CLOCK_SIZE,
    OWN_CLOCK_TYPE = const OWN_CLOCK_TYPE,
    OWN_CLOCK_UNKNOWN = const OwnClockNote::UNKNOWN,
    options(att_syntax)
);

/// Memory that the kernel needs beyond the image to start, in KiB: tables, first heap, main stack.
const MIN_FREE_KIB: u32 = 512;

/// Marks a call to the monitor, so that a program's own `int3` is not taken for one.
pub(super) const CALL: u32 = 0x564c_4d00;

/// `int3` with a call number and two arguments.
///
/// # Safety
/// The call must be right for what runs.
unsafe fn call(number: u32, a: u64, b: u64) -> u64 {
    let mut rax = u64::from(CALL | number);
    // SAFETY: the monitor changes what is listed and, as the caller promises, only mappings it may.
    unsafe {
        asm!(
            "int3",
            inout("rax") rax,
            inout("rdi") a => _,
            inout("rsi") b => _,
            out("rcx") _, out("rdx") _, out("r8") _,
        );
    }
    rax
}

/// Loads the final page tables at `cr3`, once.
///
/// # Safety
/// They must map what runs: this code, its stack, and the monitor.
pub unsafe fn lock(cr3: u64) {
    // SAFETY: as the caller promises.
    unsafe { call(5, cr3, 0) };
}

/// Maps the chunk of the stack window at `address` to the frames at `frames`; false if the monitor
/// refuses.
///
/// # Safety
/// Nothing else may use the frames.
#[must_use]
pub unsafe fn map_chunk(address: usize, frames: usize) -> bool {
    // SAFETY: as the caller promises.
    unsafe { call(1, address as u64, frames as u64) == 0 }
}

/// Unmaps the chunk at `address` and returns the frames it had.
///
/// # Safety
/// Nothing may use the addresses any more.
pub unsafe fn unmap_chunk(address: usize) -> Option<usize> {
    // SAFETY: as the caller promises.
    let entry = unsafe { call(2, address as u64, 0) };
    (entry & 1 != 0).then_some((entry & 0x000f_ffff_ffff_f000) as usize)
}

/// Halts until an interrupt.
///
/// # Safety
/// An interrupt must be sure to come, and its gate to be there: only under QEMU.
pub unsafe fn halt() {
    // SAFETY: as the caller promises.
    unsafe { call(3, 0, 0) };
}
