//! Interior mutability for the kernel's statics.

#[cfg(target_os = "hermit")]
use core::cell::Cell;
use core::cell::UnsafeCell;
#[cfg(not(target_os = "hermit"))]
use core::sync::atomic::{AtomicBool, Ordering};

/// A value that only the kernel touches, one borrow at a time.
///
/// There is one vCPU, and threads switch only where they wait, so a borrow that is not held across
/// a wait is the only one. [`with`](Self::with) checks that: a second borrow is a bug of the kernel
/// and panics. On the host, where tests run on several threads, it waits for the other thread
/// first.
#[derive(Debug)]
pub struct KernelCell<T> {
    value: UnsafeCell<T>,
    lent: Flag,
}

// SAFETY: in the guest there is one vCPU with cooperative threads, and `Flag` refuses a second
// borrow; on the host `Flag` is a lock.
unsafe impl<T> Sync for KernelCell<T> {}

impl<T> KernelCell<T> {
    /// Holds `value`.
    pub const fn new(value: T) -> Self {
        Self { value: UnsafeCell::new(value), lent: Flag::new() }
    }

    /// Lends the value to `f`, which must not wait.
    ///
    /// # Panics
    /// When it is lent already.
    #[inline]
    pub fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        self.try_with(f).expect("kernel state lent twice")
    }

    /// Lends the value to `f`, which must not wait, unless it is lent already.
    #[inline]
    pub fn try_with<R>(&self, f: impl FnOnce(&mut T) -> R) -> Option<R> {
        if !self.lent.raise() {
            return None;
        }
        // SAFETY: the flag was down, so the value is not lent, nor is it until the flag is down
        // again.
        let result = f(unsafe { &mut *self.value.get() });
        self.lent.lower();
        Some(result)
    }
}

#[cfg(target_os = "hermit")]
#[derive(Debug)]
struct Flag(Cell<bool>);

#[cfg(target_os = "hermit")]
impl Flag {
    const fn new() -> Self {
        Self(Cell::new(false))
    }

    #[inline]
    fn raise(&self) -> bool {
        !self.0.replace(true)
    }

    #[inline]
    fn lower(&self) {
        self.0.set(false);
    }
}

#[cfg(not(target_os = "hermit"))]
#[derive(Debug)]
struct Flag(AtomicBool);

#[cfg(not(target_os = "hermit"))]
impl Flag {
    /// Attempts, together some seconds, after which it must be this thread itself that has the
    /// value.
    const ATTEMPTS: u32 = 1 << 30;

    const fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    fn raise(&self) -> bool {
        (0..Self::ATTEMPTS).any(|_| {
            core::hint::spin_loop();
            !self.0.swap(true, Ordering::Acquire)
        })
    }

    fn lower(&self) {
        self.0.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_wait_for_each_other() {
        static COUNT: KernelCell<u64> = KernelCell::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1000).for_each(|_| COUNT.with(|n| *n += 1)));
            }
        });
        assert_eq!(COUNT.with(|n| *n), 4000);
    }
}
