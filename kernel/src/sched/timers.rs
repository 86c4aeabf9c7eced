//! Deadlines, the nearest first: a binary heap whose members know their place in it, so that one
//! can leave early. Room is made when a thread is spawned; setting a deadline allocates nothing.

use alloc::{collections::TryReserveError, vec::Vec};
use core::{cell::Cell, ptr::NonNull};

/// Place of a member that has no deadline.
pub const NOWHERE: usize = usize::MAX;

/// Things that can have a deadline.
///
/// # Safety
/// `heap_index` returns the same cell each time, which starts as [`NOWHERE`] and which only
/// [`Timers`] changes.
pub unsafe trait Timed {
    /// Where in the heap it is.
    fn heap_index(&self) -> &Cell<usize>;
}

#[derive(Debug)]
struct Entry<T> {
    deadline: u64,
    /// Among equal deadlines the first to come goes first.
    serial: u64,
    member: NonNull<T>,
}

impl<T> Entry<T> {
    fn key(&self) -> (u64, u64) {
        (self.deadline, self.serial)
    }
}

/// The deadlines of all that have one.
#[derive(Debug)]
pub struct Timers<T> {
    heap: Vec<Entry<T>>,
    serial: u64,
}

// SAFETY: the pointers are followed only by methods whose callers vouch for the members; there is
// one vCPU.
unsafe impl<T> Send for Timers<T> {}

impl<T: Timed> Default for Timers<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Timed> Timers<T> {
    /// None.
    #[must_use]
    pub const fn new() -> Self {
        Self { heap: Vec::new(), serial: 0 }
    }

    /// Makes room for `members` deadlines at a time.
    ///
    /// # Errors
    /// Without memory.
    pub fn reserve(&mut self, members: usize) -> Result<(), TryReserveError> {
        self.heap.try_reserve(members.saturating_sub(self.heap.len()))
    }

    /// The nearest deadline.
    #[must_use]
    pub fn next(&self) -> Option<u64> {
        self.heap.first().map(|e| e.deadline)
    }

    /// Sets the deadline of `member`, which has none.
    ///
    /// # Safety
    /// `member` stays where it is, alive, until it has no deadline any more.
    pub unsafe fn insert(&mut self, member: NonNull<T>, deadline: u64) {
        // SAFETY: as the caller promises.
        debug_assert_eq!(unsafe { member.as_ref() }.heap_index().get(), NOWHERE, "has one already");
        self.serial += 1;
        let at = self.heap.len();
        self.heap.push(Entry { deadline, serial: self.serial, member });
        self.set_index(at);
        self.up(at);
    }

    /// Takes the deadline of `member` away, if it has one.
    ///
    /// # Safety
    /// `member` is alive.
    pub unsafe fn remove(&mut self, member: NonNull<T>) {
        // SAFETY: as the caller promises.
        let at = unsafe { member.as_ref() }.heap_index().get();
        if at != NOWHERE {
            self.take(at);
        }
    }

    /// Takes out the member whose deadline is the earliest, if it is not after `now`.
    pub fn pop_due(&mut self, now: u64) -> Option<NonNull<T>> {
        (self.next()? <= now).then(|| self.take(0))
    }

    fn take(&mut self, at: usize) -> NonNull<T> {
        let member = self.heap.swap_remove(at).member;
        // SAFETY: members are alive.
        unsafe { member.as_ref() }.heap_index().set(NOWHERE);
        if at < self.heap.len() {
            self.set_index(at);
            self.down(at);
            self.up(at);
        }
        member
    }

    fn up(&mut self, mut at: usize) {
        while at > 0 {
            let parent = (at - 1) / 2;
            if self.heap[parent].key() <= self.heap[at].key() {
                break;
            }
            self.swap(at, parent);
            at = parent;
        }
    }

    fn down(&mut self, mut at: usize) {
        loop {
            let children = 2 * at + 1..(2 * at + 3).min(self.heap.len());
            let Some(least) = children.min_by_key(|c| self.heap[*c].key()) else { break };
            if self.heap[at].key() <= self.heap[least].key() {
                break;
            }
            self.swap(at, least);
            at = least;
        }
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.heap.swap(a, b);
        self.set_index(a);
        self.set_index(b);
    }

    fn set_index(&self, at: usize) {
        // SAFETY: members are alive.
        unsafe { self.heap[at].member.as_ref() }.heap_index().set(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    struct Sleeper(usize, Cell<usize>);

    // SAFETY: a field.
    unsafe impl Timed for Sleeper {
        fn heap_index(&self) -> &Cell<usize> {
            &self.1
        }
    }

    proptest! {
        #[test]
        fn wakes_in_order(
            steps in proptest::collection::vec((0..3_u8, 0..16_usize, 0..40_u64), 0..300)
        ) {
            let sleepers: Vec<Sleeper> = (0..16).map(|n| Sleeper(n, Cell::new(NOWHERE))).collect();
            let mut timers = Timers::new();
            let mut model: Vec<(u64, u64, usize)> = Vec::new();
            for (serial, (what, n, time)) in (0_u64..).zip(steps) {
                let sleeper = NonNull::from(&sleepers[n]);
                match what {
                    0 if model.iter().all(|m| m.2 != n) => {
                        // SAFETY: outlives the loop.
                        unsafe { timers.insert(sleeper, time) };
                        model.push((time, serial, n));
                    }
                    1 => {
                        // SAFETY: alive.
                        unsafe { timers.remove(sleeper) };
                        model.retain(|m| m.2 != n);
                    }
                    2 => {
                        model.sort_unstable();
                        let expected = model.first().filter(|m| m.0 <= time).map(|m| m.2);
                        if expected.is_some() {
                            model.remove(0);
                        }
                        // SAFETY: sleepers outlive timers.
                        let got = timers.pop_due(time).map(|s| unsafe { s.as_ref() }.0);
                        prop_assert_eq!(got, expected);
                    }
                    _ => {}
                }
                prop_assert_eq!(timers.next(), model.iter().map(|m| m.0).min());
            }
        }
    }
}
