//! Threads that wait for one thing, in the order they came.

use super::{Thread, Wake, block, current, make_ready};
use crate::list::List;

/// Threads that wait for one thing. Waiting and waking allocate nothing.
#[derive(Debug)]
pub struct WaitQueue(List<Thread>);

// SAFETY: there is one vCPU, and threads switch only where they wait.
unsafe impl Sync for WaitQueue {}
// SAFETY: a queue on which a thread waits is borrowed by `wait` and so cannot be moved; an empty
// one is two nulls.
unsafe impl Send for WaitQueue {}

impl WaitQueue {
    /// An empty queue.
    #[must_use]
    pub const fn new() -> Self {
        Self(List::new())
    }

    /// Waits until woken, or until the monotonic clock reaches `deadline_ns`. Another thread may
    /// have taken what the caller waits for: it checks again. No
    /// [`KernelCell`](crate::cpu::KernelCell) may be lent out.
    pub fn wait(&self, deadline_ns: Option<u64>) -> Wake {
        // SAFETY: the current thread runs, so it is in no list. It leaves this one before it runs
        // again, woken or timed out, and until then `self` is borrowed here.
        unsafe { self.0.push_back(current()) };
        block(deadline_ns)
    }

    /// Makes the thread that has waited longest ready to run; false if there is none. Never
    /// switches to it.
    pub fn wake_one(&self) -> bool {
        self.0.pop_front().map(make_ready).is_some()
    }

    /// Makes all of them ready; returns how many there were.
    pub fn wake_all(&self) -> usize {
        let mut woken = 0;
        while self.wake_one() {
            woken += 1;
        }
        woken
    }

    /// Whether no thread waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Default for WaitQueue {
    fn default() -> Self {
        Self::new()
    }
}
