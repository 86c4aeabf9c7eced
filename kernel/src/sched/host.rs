//! On the host there are no kernel threads: nobody waits, and nothing comes in.

use super::Wake;

/// Nobody ever waits here.
#[derive(Debug, Default)]
pub struct WaitQueue(());

impl WaitQueue {
    /// Nobody waits.
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

    /// Wakes nobody.
    pub fn wake_one(&self) -> bool {
        false
    }

    /// Wakes nobody.
    pub fn wake_all(&self) -> usize {
        0
    }

    /// Nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        true
    }
}
