//! Instructions that need no privilege.

use core::arch::asm;

/// Sets the base of FS: where thread-local storage is found.
///
/// # Safety
/// `base` must be the thread pointer of the thread that runs from here on.
pub unsafe fn set_fs_base(base: usize) {
    // SAFETY: CR4.FSGSBASE was set at boot; the caller answers for the value.
    unsafe { asm!("wrfsbase {}", in(reg) base, options(nostack, preserves_flags)) }
}

/// A word of the CPU's random generator, if it gives one.
///
/// # Safety
/// The CPU must have the instruction.
#[must_use]
pub unsafe fn rdrand() -> Option<u64> {
    let (value, ok): (u64, u8);
    // SAFETY: as the caller promises.
    unsafe {
        asm!("rdrand {}", "setc {}", out(reg) value, out(reg_byte) ok, options(nomem, nostack))
    }
    (ok != 0).then_some(value)
}

/// Touches the stack two pages ahead, so that what follows does not fault on a page that is not
/// committed yet: the handler of such a fault needs kernel state that may be lent out by then.
pub fn touch_stack() {
    // SAFETY: reads below the stack pointer; either the page is committed, or the fault commits it,
    // or the stack is used up.
    unsafe { asm!("test byte ptr [rsp - 8192], 0", options(nostack, readonly)) }
}
