//! Where threads wait for something.

use alloc::collections::VecDeque;

use super::{ThreadId, block, current, look_around, wake};
use crate::cell::KernelCell;

/// Why a wait ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wake {
    /// Somebody woke it.
    Woken,
    /// The deadline came.
    TimedOut,
}

/// Threads in the order in which they came.
#[derive(Debug)]
pub struct WaitQueue(KernelCell<VecDeque<ThreadId>>);

impl WaitQueue {
    /// Nobody waits.
    #[must_use]
    pub const fn new() -> Self {
        Self(KernelCell::new(VecDeque::new()))
    }

    /// Waits until woken, or until `deadline_ns` of the monotonic clock.
    pub fn wait(&self, deadline_ns: Option<u64>) -> Wake {
        let id = current();
        self.0.with(|q| q.push_back(id));
        let timed_out = block(deadline_ns);
        if timed_out {
            self.0.with(|q| q.retain(|waiting| *waiting != id));
            return Wake::TimedOut;
        }
        look_around();
        Wake::Woken
    }

    /// Wakes who has waited longest.
    pub fn wake_one(&self) -> bool {
        match self.0.with(VecDeque::pop_front) {
            Some(id) => {
                wake(id);
                true
            }
            None => false,
        }
    }

    /// Wakes all.
    pub fn wake_all(&self) {
        while self.wake_one() {}
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.0.with(|q| q.is_empty())
    }
}

impl Default for WaitQueue {
    fn default() -> Self {
        Self::new()
    }
}
