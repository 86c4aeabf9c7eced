//! A lock whose holder runs with the priority of who waits for it.
//!
//! An ordinary thread that is preempted while it holds a lock keeps a real-time thread from it for
//! as long as other threads use its CPU. With priority inheritance it is not preempted by those.

use std::{
    cell::UnsafeCell,
    fmt, io,
    marker::PhantomData,
    ops::{Deref, DerefMut},
};

/// See the module. It is not poisoned by a panic.
pub struct InheritingMutex<T> {
    /// In one place for its life, as the C library requires.
    raw: Box<UnsafeCell<libc::pthread_mutex_t>>,
    value: UnsafeCell<T>,
}

// SAFETY: the value is used by one thread at a time, the one that has locked the mutex.
unsafe impl<T: Send> Send for InheritingMutex<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for InheritingMutex<T> {}

impl<T> InheritingMutex<T> {
    /// A mutex that nothing holds.
    ///
    /// # Errors
    /// If the host has no such locks.
    pub fn new(value: T) -> io::Result<Self> {
        let raw = Box::new(UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER));
        let mut attributes = std::mem::MaybeUninit::<libc::pthread_mutexattr_t>::uninit();
        let check = |code| if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(code)) };
        // SAFETY: the attributes are initialized before they are used, and the mutex is used by
        // nothing else yet.
        unsafe {
            check(libc::pthread_mutexattr_init(attributes.as_mut_ptr()))?;
            check(libc::pthread_mutexattr_setprotocol(
                attributes.as_mut_ptr(),
                libc::PTHREAD_PRIO_INHERIT,
            ))?;
            check(libc::pthread_mutex_init(raw.get(), attributes.as_ptr()))?;
            check(libc::pthread_mutexattr_destroy(attributes.as_mut_ptr()))?;
        }
        Ok(Self { raw, value: UnsafeCell::new(value) })
    }

    /// Waits until it is free, and locks it.
    ///
    /// # Panics
    /// If this thread holds it already.
    pub fn lock(&self) -> InheritingGuard<'_, T> {
        // SAFETY: the mutex is initialized, and lives as long as this.
        let code = unsafe { libc::pthread_mutex_lock(self.raw.get()) };
        assert_eq!(code, 0, "the lock is held by this thread");
        InheritingGuard(self, PhantomData)
    }
}

impl<T> Drop for InheritingMutex<T> {
    fn drop(&mut self) {
        // SAFETY: nothing holds it, as a guard borrows it.
        unsafe { libc::pthread_mutex_destroy(self.raw.get()) };
    }
}

impl<T: fmt::Debug> fmt::Debug for InheritingMutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InheritingMutex").finish_non_exhaustive()
    }
}

/// Unlocks when it is dropped.
pub struct InheritingGuard<'m, T>(&'m InheritingMutex<T>, PhantomData<*const ()>);

impl<T> fmt::Debug for InheritingGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InheritingGuard").finish_non_exhaustive()
    }
}

impl<T> Drop for InheritingGuard<'_, T> {
    fn drop(&mut self) {
        // SAFETY: this thread has locked it, as guards do not go to other threads.
        unsafe { libc::pthread_mutex_unlock(self.0.raw.get()) };
    }
}

impl<T> Deref for InheritingGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the lock is held.
        unsafe { &*self.0.value.get() }
    }
}

impl<T> DerefMut for InheritingGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the lock is held, and this borrow of the guard is the only one.
        unsafe { &mut *self.0.value.get() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn one_thread_at_a_time_has_the_value() {
        let mutex = InheritingMutex::new(0_u64).unwrap();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10_000).for_each(|_| *mutex.lock() += 1));
            }
        });
        assert_eq!(*mutex.lock(), 40_000);
    }
}
