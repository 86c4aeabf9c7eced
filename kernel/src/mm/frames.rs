//! Chunks of 16 KiB for stacks, taken from the top of memory downwards.

use super::heap::Heap;

/// Size of a chunk: what a stack is committed by. Four pages, so that most threads never fault a second time.
pub const CHUNK: usize = 16 << 10;

/// The chunks.
#[derive(Debug)]
pub struct Frames {
    floor: usize,
    /// First of the free chunks; each holds the address of the next, 0 ends the list.
    free: usize,
    free_count: usize,
}

impl Frames {
    /// None.
    #[must_use]
    pub const fn empty() -> Self {
        Self { floor: 0, free: 0, free_count: 0 }
    }

    /// Chunks below `end`.
    #[must_use]
    pub const fn below(end: usize) -> Self {
        Self { floor: end & !(CHUNK - 1), free: 0, free_count: 0 }
    }

    /// Takes a chunk, from the free ones or from what the heap has not reached.
    pub fn take(&mut self, heap: &mut Heap) -> Option<usize> {
        if self.free != 0 {
            let chunk = self.free;
            // SAFETY: a chunk on the list is ours, mapped where it is, and holds the address of the next.
            self.free = unsafe { *(chunk as *const usize) };
            self.free_count -= 1;
            return Some(chunk);
        }
        let chunk = self.floor.checked_sub(CHUNK)?;
        heap.lower_limit(chunk).then(|| {
            self.floor = chunk;
            chunk
        })
    }

    /// Takes a chunk back.
    pub fn give(&mut self, chunk: usize) {
        // SAFETY: the caller gives up a chunk that `take` handed out, so it is ours and mapped.
        unsafe { *(chunk as *mut usize) = self.free };
        self.free = chunk;
        self.free_count += 1;
    }
}
