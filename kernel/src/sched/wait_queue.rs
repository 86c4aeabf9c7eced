//! Threads that wait for one thing, in the order they came.

/// How a wait ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wake {
    /// Somebody woke the thread.
    Woken,
    /// The deadline passed first.
    TimedOut,
}

/// Threads that wait for one thing.
#[derive(Debug)]
pub struct WaitQueue {
    _private: (),
}

impl WaitQueue {
    /// Nobody waits.
    #[must_use]
    pub const fn new() -> Self {
        Self { _private: () }
    }

    /// Waits until woken, or until the monotonic clock reaches `deadline_ns`. Look again at what you wait for: a wake may be
    /// meant for another. No [`KernelCell`](crate::cell::KernelCell) may be lent out.
    pub fn wait(&self, _deadline_ns: Option<u64>) -> Wake {
        unimplemented!()
    }

    /// Makes the thread that has waited longest ready to run; says whether there was one. Never switches.
    pub fn wake_one(&self) -> bool {
        unimplemented!()
    }

    /// Makes all of them ready; returns how many there were.
    pub fn wake_all(&self) -> usize {
        unimplemented!()
    }
}

impl Default for WaitQueue {
    fn default() -> Self {
        Self::new()
    }
}
