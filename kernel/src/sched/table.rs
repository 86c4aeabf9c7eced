//! Which number is which thread.

use alloc::{collections::TryReserveError, vec::Vec};
use core::ptr::NonNull;

use super::{Thread, ThreadId};

/// The threads that have not ended, by number.
#[derive(Debug)]
pub(super) struct Table {
    by_id: Vec<(ThreadId, NonNull<Thread>)>,
    next: ThreadId,
}

// SAFETY: only pointers, which others follow; there is one vCPU.
unsafe impl Send for Table {}

impl Table {
    pub const fn new() -> Self {
        Self { by_id: Vec::new(), next: 0 }
    }

    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    pub fn get(&self, id: ThreadId) -> Option<NonNull<Thread>> {
        let at = self.search(id).ok()?;
        Some(self.by_id[at].1)
    }

    /// Makes sure that [`insert`](Self::insert) finds room.
    pub fn reserve(&mut self) -> Result<(), TryReserveError> {
        self.by_id.try_reserve(1)
    }

    /// Gives `thread` a number.
    pub fn insert(&mut self, thread: NonNull<Thread>) -> ThreadId {
        loop {
            let id = self.next;
            // 0 is the main thread's alone: as the result of `spawn` it would mean an error.
            self.next = id.checked_add(1).unwrap_or(1);
            if let Err(at) = self.search(id) {
                self.by_id.insert(at, (id, thread));
                return id;
            }
        }
    }

    pub fn remove(&mut self, id: ThreadId) {
        if let Ok(at) = self.search(id) {
            self.by_id.remove(at);
        }
    }

    /// The threads.
    pub fn iter(&self) -> impl Iterator<Item = NonNull<Thread>> + '_ {
        self.by_id.iter().map(|(_, thread)| *thread)
    }

    fn search(&self, id: ThreadId) -> Result<usize, usize> {
        self.by_id.binary_search_by_key(&id, |(id, _)| *id)
    }
}
