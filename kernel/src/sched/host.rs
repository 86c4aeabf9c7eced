//! On the host there are no kernel threads: no thread ever waits.

use super::Wake;

/// A queue that is always empty.
#[derive(Debug, Default)]
pub struct WaitQueue(());

impl WaitQueue {
    /// An empty queue.
    #[must_use]
    pub const fn new() -> Self {
        Self(())
    }

    /// Cannot wait.
    ///
    /// # Panics
    /// Always.
    pub fn wait(&self, deadline_ns: Option<u64>) -> Wake {
        panic!("the host has no kernel threads that could wait until {deadline_ns:?}")
    }

    /// Wakes no thread.
    pub fn wake_one(&self) -> bool {
        false
    }

    /// Wakes no thread.
    pub fn wake_all(&self) -> usize {
        0
    }

    /// True: no thread waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        true
    }
}
