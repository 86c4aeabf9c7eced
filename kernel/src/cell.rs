//! Interior mutability for the kernel's statics.

use core::cell::{Cell, UnsafeCell};

/// A value that only the kernel touches, one borrow at a time.
///
/// There is one vCPU and threads switch only where they block, so a borrow that is not held across a switch is alone.
/// [`Self::with`] checks that: re-entry is a bug of the kernel and panics.
#[derive(Debug)]
pub struct KernelCell<T> {
    value: UnsafeCell<T>,
    borrowed: Cell<bool>,
}

// SAFETY: one vCPU, cooperative threads; `with` refuses a second borrow. Tests on the host give each thread its own.
unsafe impl<T> Sync for KernelCell<T> {}

impl<T> KernelCell<T> {
    /// Holds `value`.
    pub const fn new(value: T) -> Self {
        Self { value: UnsafeCell::new(value), borrowed: Cell::new(false) }
    }

    /// Lends the value to `f`, which must not block.
    ///
    /// # Panics
    /// When it is lent already.
    pub fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        #[cfg(target_os = "hermit")]
        crate::arch::cpu::touch_stack();
        assert!(!self.borrowed.replace(true), "kernel state borrowed twice");
        // SAFETY: the flag says that nobody else has it, and nobody can get it until it is cleared.
        let result = f(unsafe { &mut *self.value.get() });
        self.borrowed.set(false);
        result
    }
}
