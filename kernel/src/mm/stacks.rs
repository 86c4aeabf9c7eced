//! Stacks: slots of a virtual window, the lowest chunk of each never mapped, the rest committed as
//! it is touched.
//!
//! A slot's size is a power of two, and the window has a region for each size. So the monitor sees
//! from an address alone which chunks are guards, and never maps one. The guard is part of the size
//! that was asked for.

use alloc::vec::Vec;
use core::cell::Cell;

use super::{give_chunk, shrink, take_chunk, zone::CHUNK};
use crate::{
    arch::{
        map_chunk,
        paging::{REGION_SHIFT, WINDOW, WINDOW_SIZE},
        unmap_chunk,
    },
    cpu::KernelCell,
};

/// Least size of a stack: the kernel runs on it too.
const LEAST: usize = 64 << 10;
/// How many regions the window has: one for each number of address bits in a slot.
const SIZES: usize = WINDOW_SIZE >> REGION_SHIFT;
/// What an idle slot may keep committed for the next thread.
const KEEP: usize = 2 * CHUNK;
/// Of how many chunks from the top the frames are remembered.
const REMEMBERED: usize = 16;
/// How many idle slots keep anything committed.
const WARM: usize = 64;

/// A slot in use as a stack: `[bottom, top)`, growing down.
#[derive(Debug)]
pub struct Stack {
    bottom: usize,
    top: usize,
    /// What lies from here to the top is mapped.
    committed: Cell<usize>,
    /// The frames of the first chunks from the top, by number of the chunk in RAM.
    chunks: [Cell<u32>; REMEMBERED],
}

/// Slots of threads that have ended.
struct Slots {
    /// How many of each size were ever made.
    made: [usize; SIZES],
    /// Those that keep something committed.
    warm: Vec<Stack>,
    /// Those that do not.
    bare: Vec<Stack>,
}

static SLOTS: KernelCell<Slots> =
    KernelCell::new(Slots { made: [0; SIZES], warm: Vec::new(), bare: Vec::new() });

impl Stack {
    /// A stack of `size` bytes or a little more, its guard included, with its top chunk committed.
    /// `None` without memory.
    pub fn new(size: usize) -> Option<Self> {
        let size = size.max(LEAST).checked_next_power_of_two()?;
        let stack = Self::reused(size).or_else(|| Self::fresh(size))?;
        if stack.committed.get() < stack.top || stack.commit(stack.top - CHUNK) {
            return Some(stack);
        }
        if (shrink() | release_idle()) && stack.commit(stack.top - CHUNK) {
            return Some(stack);
        }
        stack.retire();
        None
    }

    fn reused(size: usize) -> Option<Self> {
        SLOTS.with(|slots| {
            [&mut slots.warm, &mut slots.bare].into_iter().find_map(|idle| {
                let at = idle.iter().rposition(|s| s.top - s.bottom == size)?;
                Some(idle.swap_remove(at))
            })
        })
    }

    fn fresh(size: usize) -> Option<Self> {
        let bits = size.ilog2() as usize;
        SLOTS.with(|slots| {
            // Room for all of them to become idle: giving one back must not fail.
            let all = slots.made.iter().sum::<usize>() + 1;
            slots.bare.try_reserve(all - slots.bare.len()).ok()?;
            slots.warm.try_reserve(WARM - slots.warm.len()).ok()?;
            let region = WINDOW + (bits << REGION_SHIFT);
            let bottom = region + slots.made.get(bits)? * size;
            let top = bottom + size;
            if top > region + (1 << REGION_SHIFT) {
                return None;
            }
            slots.made[bits] += 1;
            let chunks = [const { Cell::new(0) }; REMEMBERED];
            Some(Self { bottom, top, committed: Cell::new(top), chunks })
        })
    }

    /// Its end, where it starts to grow down from.
    pub fn top(&self) -> usize {
        self.top
    }

    /// The lowest address that is mapped.
    pub fn committed(&self) -> usize {
        self.committed.get()
    }

    /// Whether `address` is the slot's, its guard included.
    pub fn holds(&self, address: usize) -> bool {
        (self.bottom..self.top).contains(&address)
    }

    /// Commits all from the chunk that holds `address` upwards; false without memory, and for what
    /// is not of the stack. Called by the handler of page faults, whatever the kernel was doing.
    pub fn commit(&self, address: usize) -> bool {
        if !(self.bottom + CHUNK..self.committed.get()).contains(&address) {
            return false;
        }
        while self.committed.get() > address {
            let Some(frames) = take_chunk() else { return false };
            let chunk = self.committed.get() - CHUNK;
            // SAFETY: the frames were just taken, and nothing else uses them.
            if !unsafe { map_chunk(chunk, frames) } {
                // SAFETY: not mapped, so not used.
                unsafe { give_chunk(frames) };
                return false;
            }
            self.committed.set(chunk);
            if let Some(remembered) = self.chunks.get((self.top - chunk) / CHUNK - 1) {
                remembered.set((frames / CHUNK) as u32);
            }
        }
        true
    }

    /// Calls `f` with the pieces of RAM below `address` of the stack, as far as they are
    /// remembered.
    pub fn each_frame_below(&self, address: usize, mut f: impl FnMut(usize, usize)) {
        let committed = (self.top - self.committed.get()) / CHUNK;
        for (n, chunk) in self.chunks.iter().take(committed).enumerate() {
            let bottom = self.top - (n + 1) * CHUNK;
            let frames = chunk.get() as usize * CHUNK;
            f(frames, frames + address.saturating_sub(bottom).min(CHUNK));
        }
    }

    /// Gives back what lies below `keep`. Nothing may run on it.
    fn uncommit(&self, keep: usize) {
        while self.committed.get() < keep {
            let chunk = self.committed.get();
            // SAFETY: nothing runs on this stack.
            if let Some(frames) = unsafe { unmap_chunk(chunk) } {
                // SAFETY: unmapped, so not used.
                unsafe { give_chunk(frames) };
            }
            self.committed.set(chunk + CHUNK);
        }
    }

    /// Keeps the slot for the next thread. Nothing may run on it.
    pub fn retire(self) {
        let warm = SLOTS.with(|s| s.warm.len() < WARM);
        let keep = if warm { self.top - KEEP } else { self.top };
        self.uncommit(keep);
        SLOTS.with(|slots| if warm { slots.warm.push(self) } else { slots.bare.push(self) });
    }
}

/// Returns to the zone what idle stacks keep, for a heap that has run out of memory; false if there
/// was nothing.
pub fn release_idle() -> bool {
    // Lent while the slots' own list grows.
    let released = SLOTS.try_with(|slots| {
        let any = !slots.warm.is_empty();
        while let Some(stack) = slots.warm.pop() {
            stack.uncommit(stack.top);
            slots.bare.push(stack);
        }
        any
    });
    released.unwrap_or(false)
}

/// Calls `f` with each idle stack.
pub fn each_idle(f: impl FnMut(&Stack)) {
    SLOTS.with(|slots| slots.warm.iter().for_each(f));
}
