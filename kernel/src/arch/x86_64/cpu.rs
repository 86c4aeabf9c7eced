//! Instructions that need no privilege.

use core::arch::{asm, x86_64};

/// Sets the base of FS: where thread-local storage is found.
///
/// # Safety
/// `base` must be the thread pointer of the thread that runs from here on.
pub unsafe fn set_fs_base(base: usize) {
    // SAFETY: CR4.FSGSBASE was set at boot; the caller answers for the value.
    unsafe { asm!("wrfsbase {}", in(reg) base, options(nostack, preserves_flags)) }
}

/// Words of the CPU's random generator; `None` for each that it does not give.
#[must_use]
pub fn random<const N: usize>() -> [Option<u64>; N] {
    // CPUID once for all words: where it is emulated, it takes longer than the rest.
    let has_rdrand = x86_64::__cpuid(1).ecx & (1 << 30) != 0;
    core::array::from_fn(|_| if has_rdrand { rdrand() } else { None })
}

fn rdrand() -> Option<u64> {
    (0..10).find_map(|_| {
        let (value, ok): (u64, u8);
        // SAFETY: the caller has asked CPUID whether the instruction is there.
        unsafe {
            asm!("rdrand {}", "setc {}", out(reg) value, out(reg_byte) ok, options(nomem, nostack))
        }
        (ok != 0).then_some(value)
    })
}

/// Touches the stack two pages ahead, so that what follows does not fault on a page that is not
/// committed yet: the handler of such a fault needs kernel state that may be lent out by then.
pub fn touch_stack() {
    // SAFETY: reads below the stack pointer; either the page is committed, or the fault commits it,
    // or the stack is used up.
    unsafe { asm!("test byte ptr [rsp - 8192], 0", options(nostack, readonly)) }
}
