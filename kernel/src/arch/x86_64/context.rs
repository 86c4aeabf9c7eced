//! Switching from one thread's stack to another's.

#[cfg(target_os = "hermit")]
unsafe extern "C" {
    /// Saves callee-saved registers on the current stack and its pointer at `save`, and continues on `load`.
    pub fn switch_stack(save: *mut usize, load: usize);
    fn thread_trampoline();
}

/// Lays out a fresh stack so that switching to it calls `entry(argument)`; returns the stack pointer to load.
///
/// # Safety
/// `top` must be the 16-byte aligned end of writable memory of at least 64 bytes.
#[cfg(target_os = "hermit")]
#[must_use]
pub unsafe fn prepare(top: usize, entry: extern "C" fn(usize) -> !, argument: usize) -> usize {
    // r15, r14, r13, r12, rbp, rbx, return address; then RSP is 16-byte aligned at the trampoline's call.
    let frame = [0, 0, entry as usize, argument, 0, 0, thread_trampoline as *const () as usize];
    let at = (top - 16 - size_of_val(&frame)) as *mut [usize; 7];
    // SAFETY: inside what the caller says is writable; `top - 16 - 56` is 8-byte aligned.
    unsafe { at.write(frame) };
    at as usize
}
