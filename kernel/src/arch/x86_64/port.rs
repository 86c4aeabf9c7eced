//! I/O ports that the TSS opens to CPL 3.

use core::arch::asm;

/// Writes a byte.
///
/// # Safety
/// The device behind `port` must not do what breaks Rust's memory, and the TSS must open the port.
pub unsafe fn out8(port: u16, value: u8) {
    // SAFETY: as the caller promises.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nostack, preserves_flags)) }
}

/// Writes 32 bits.
///
/// # Safety
/// As [`out8`].
pub unsafe fn out32(port: u16, value: u32) {
    // SAFETY: as the caller promises. The device may write memory, so no `nomem`.
    unsafe {
        asm!("out dx, eax", in("dx") port, in("eax") value, options(nostack, preserves_flags))
    }
}

/// Reads a byte.
///
/// # Safety
/// As [`out8`].
pub unsafe fn in8(port: u16) -> u8 {
    let value;
    // SAFETY: as the caller promises.
    unsafe { asm!("in al, dx", in("dx") port, out("al") value, options(nostack, preserves_flags)) }
    value
}
