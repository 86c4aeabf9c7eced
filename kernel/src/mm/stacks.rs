//! Stacks: slots of a virtual window, each with a guard page below, committed as they are touched.

use alloc::vec::Vec;

use super::{MEMORY, frames::CHUNK};
use crate::{
    arch::{map_chunk, paging::WINDOW, unmap_chunk},
    cell::KernelCell,
};

/// Least size of a stack.
const MIN: usize = 64 << 10;
/// The window's size.
const WINDOW_SIZE: usize = 256 << 30;

/// A slot: `[bottom, top)`, of which the lowest chunk is never mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stack {
    /// First address, where the guard is.
    pub bottom: usize,
    /// End.
    pub top: usize,
    /// Lowest committed address.
    pub committed: usize,
}

#[derive(Debug)]
struct Window {
    next: usize,
    /// Slots of threads that have ended, with what they have committed.
    idle: Vec<Stack>,
}

static SLOTS: KernelCell<Window> = KernelCell::new(Window { next: WINDOW, idle: Vec::new() });

impl Stack {
    /// A stack of at least `size` bytes with its first chunk committed.
    #[must_use]
    pub fn new(size: usize) -> Option<Self> {
        let size = size.max(MIN).checked_next_multiple_of(CHUNK)?.checked_add(CHUNK)?;
        let reused = SLOTS.with(|slots| {
            let at = slots.idle.iter().rposition(|s| s.top - s.bottom == size)?;
            Some(slots.idle.swap_remove(at))
        });
        if let Some(stack) = reused {
            return Some(stack);
        }
        let bottom = SLOTS.with(|slots| {
            let bottom = slots.next;
            slots.next = bottom.checked_add(size).filter(|end| *end <= WINDOW + WINDOW_SIZE)?;
            Some(bottom)
        })?;
        let mut stack = Self { bottom, top: bottom + size, committed: bottom + size };
        if stack.commit(stack.top - CHUNK) {
            return Some(stack);
        }
        SLOTS.with(|slots| slots.idle.push(stack));
        None
    }

    /// Whether `address` is the guard's.
    #[must_use]
    pub fn is_guard(&self, address: usize) -> bool {
        (self.bottom..self.bottom + CHUNK).contains(&address)
    }

    /// Whether `address` belongs to the slot.
    #[must_use]
    pub fn contains(&self, address: usize) -> bool {
        (self.bottom..self.top).contains(&address)
    }

    /// Commits the chunk that holds `address`; false without memory or for the guard.
    pub fn commit(&mut self, address: usize) -> bool {
        let chunk = address & !(CHUNK - 1);
        if self.is_guard(address) || !self.contains(address) {
            return false;
        }
        let Some(frames) = MEMORY.with(|m| m.frames.take(&mut m.heap)) else { return false };
        // SAFETY: the frames were just taken and are nobody else's.
        let mapped = unsafe { map_chunk(chunk, frames) };
        if mapped {
            self.committed = self.committed.min(chunk);
        } else {
            MEMORY.with(|m| m.frames.give(frames));
        }
        mapped
    }

    /// Keeps the slot for the next thread; all but its first chunk is given back.
    pub fn retire(mut self) {
        let keep = self.top - CHUNK;
        let mut at = self.committed;
        while at < keep {
            // SAFETY: the thread has ended, so nothing uses its stack.
            if let Some(frames) = unsafe { unmap_chunk(at) } {
                MEMORY.with(|m| m.frames.give(frames));
            }
            at += CHUNK;
        }
        self.committed = keep;
        SLOTS.with(|slots| slots.idle.push(self));
    }
}
