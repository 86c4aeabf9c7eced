//! Switching from one thread's stack to another's.

#[cfg(target_os = "hermit")]
core::arch::global_asm!(include_str!("context.s"), options(att_syntax));

#[cfg(target_os = "hermit")]
unsafe extern "C" {
    /// Saves callee-saved registers on the current stack and its pointer at `save`, and continues
    /// on `load`.
    pub fn switch_stack(save: *mut usize, load: usize);
    fn thread_trampoline();
}

/// The ABI's initial floating-point state: MXCSR and, above it, the x87 control word; all
/// exceptions masked.
#[cfg(target_os = "hermit")]
const FP_CONTROL: usize = 0x1f80 | 0x037f << 32;

/// Lays out a fresh stack, so that switching to it calls `entry(argument)`; returns the stack
/// pointer to load.
///
/// # Safety
/// `top` must be the 16-byte aligned end of writable memory of at least 64 bytes.
#[cfg(target_os = "hermit")]
#[must_use]
pub unsafe fn prepare(top: usize, entry: extern "C" fn(usize) -> !, argument: usize) -> usize {
    // Floating-point control, R15, R14, R13, R12, RBP, RBX, return address; then RSP is 16-byte
    // aligned at the trampoline's call.
    let trampoline = thread_trampoline as *const () as usize;
    let frame = [FP_CONTROL, 0, 0, entry as usize, argument, 0, 0, trampoline];
    let at = core::ptr::with_exposed_provenance_mut::<[usize; 8]>(top - 16 - size_of_val(&frame));
    // SAFETY: inside what the caller promises to be writable, and aligned.
    unsafe { at.write(frame) };
    at.addr()
}
