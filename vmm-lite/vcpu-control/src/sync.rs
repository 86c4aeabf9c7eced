//! The locks and atomics: the standard library's, or those of the model checker.

#[cfg(feature = "loom")]
pub(crate) use checked::{AtomicBool, AtomicI32, AtomicU32, TryMutex, TryMutexGuard};
#[cfg(feature = "loom")]
pub(crate) use loom::sync::{Condvar, Mutex, MutexGuard};
#[cfg(not(feature = "loom"))]
pub(crate) use std::sync::{
    Condvar, Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicI32, AtomicU32},
};
#[cfg(not(feature = "loom"))]
pub(crate) use std::sync::{Mutex as TryMutex, MutexGuard as TryMutexGuard};
pub(crate) use std::sync::{PoisonError, TryLockError, atomic::Ordering::SeqCst};

/// What loom 0.7 lacks.
#[cfg(feature = "loom")]
mod checked {
    use loom::sync::{
        Condvar, Mutex,
        atomic::{self, Ordering, fence},
    };
    use std::{
        ops::{Deref, DerefMut},
        sync::{self, LockResult, TryLockError, TryLockResult},
    };

    /// A mutex whose `try_lock` never waits. Loom's waits if another thread takes the lock first.
    pub struct TryMutex<T> {
        locked: Mutex<bool>,
        unlocked: Condvar,
        value: sync::Mutex<T>,
    }

    pub struct TryMutexGuard<'m, T> {
        mutex: &'m TryMutex<T>,
        value: Option<sync::MutexGuard<'m, T>>,
    }

    impl<T> TryMutex<T> {
        pub fn new(value: T) -> Self {
            Self {
                locked: Mutex::new(false),
                unlocked: Condvar::new(),
                value: sync::Mutex::new(value),
            }
        }

        fn guard(&self) -> TryMutexGuard<'_, T> {
            let value = self.value.try_lock().expect("this thread is the one that set `locked`");
            TryMutexGuard { mutex: self, value: Some(value) }
        }

        pub fn lock(&self) -> LockResult<TryMutexGuard<'_, T>> {
            let mut locked = self.locked.lock().unwrap();
            while *locked {
                locked = self.unlocked.wait(locked).unwrap();
            }
            *locked = true;
            Ok(self.guard())
        }

        pub fn try_lock(&self) -> TryLockResult<TryMutexGuard<'_, T>> {
            let mut locked = self.locked.lock().unwrap();
            if *locked {
                return Err(TryLockError::WouldBlock);
            }
            *locked = true;
            Ok(self.guard())
        }
    }

    impl<T> Drop for TryMutexGuard<'_, T> {
        fn drop(&mut self) {
            let mut locked = self.mutex.locked.lock().unwrap();
            self.value = None;
            *locked = false;
            drop(locked);
            self.mutex.unlocked.notify_one();
        }
    }

    impl<T> Deref for TryMutexGuard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            self.value.as_ref().expect("until it is dropped")
        }
    }

    impl<T> DerefMut for TryMutexGuard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            self.value.as_mut().expect("until it is dropped")
        }
    }

    // Sequentially consistent atomics: loom takes `SeqCst` of a load or a store for acquire and
    // release only, but knows fences that are sequentially consistent.

    macro_rules! atomic {
        ($name:ident, $of:ty $(, $rmw:ident)*) => {
            #[derive(Debug)]
            pub struct $name(atomic::$name);

            #[allow(dead_code, reason = "each has the same operations")]
            impl $name {
                pub fn new(value: $of) -> Self {
                    Self(atomic::$name::new(value))
                }

                pub fn load(&self, order: Ordering) -> $of {
                    fence(order);
                    self.0.load(order)
                }

                pub fn store(&self, value: $of, order: Ordering) {
                    self.0.store(value, order);
                    fence(order);
                }

                $(pub fn $rmw(&self, value: $of, order: Ordering) -> $of {
                    fence(order);
                    let before = self.0.$rmw(value, order);
                    fence(order);
                    before
                })*
            }
        };
    }
    atomic!(AtomicBool, bool, swap);
    atomic!(AtomicI32, i32);
    atomic!(AtomicU32, u32, fetch_add, fetch_sub);
}
