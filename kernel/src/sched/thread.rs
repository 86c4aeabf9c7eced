//! A thread: its stack, its thread-local storage, its places in the scheduler's lists.

use core::cell::Cell;

use super::{WaitQueue, timers::Timed};
use crate::{
    cpu::tls::Tls,
    list::{Linked, Links},
    mm::stacks::Stack,
};

/// Number of a thread. The main thread is 0; numbers are not used again (before 2³² threads have
/// come and gone).
pub type ThreadId = u32;

/// What the scheduler keeps of a thread. It stays where it is, alive, from `spawn` until another
/// thread frees it.
#[derive(Debug)]
pub struct Thread {
    /// Its number.
    pub(super) id: ThreadId,
    /// Stack pointer while it does not run.
    pub(super) sp: Cell<usize>,
    /// Its stack.
    pub(super) stack: Stack,
    /// Its thread-local storage.
    pub(super) tls: Tls,
    /// Place among those that are ready, or that wait for the same thing.
    pub(super) links: Links<Self>,
    /// Place among those that have a deadline.
    pub(super) timer: Cell<usize>,
    /// Whether the last wait ended by its deadline.
    pub(super) timed_out: Cell<bool>,
    /// What futex it waits for.
    pub(super) futex: Cell<usize>,
    /// The number of the last error that a call of its ended with.
    pub(super) last_error: Cell<i32>,
    /// Threads that wait for its end.
    pub(super) ended: WaitQueue,
    /// What it runs.
    pub(super) entry: extern "C" fn(usize),
    /// And with what.
    pub(super) argument: usize,
}

// SAFETY: a field.
unsafe impl Linked for Thread {
    fn links(&self) -> &Links<Self> {
        &self.links
    }
}

// SAFETY: a field, which starts as nowhere.
unsafe impl Timed for Thread {
    fn heap_index(&self) -> &Cell<usize> {
        &self.timer
    }
}
