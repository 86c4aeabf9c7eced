//! The calling thread.

/// Its id, as the kernel numbers threads.
#[must_use]
pub fn this_thread() -> i32 {
    // SAFETY: no arguments, cannot fail.
    unsafe { libc::gettid() }
}
