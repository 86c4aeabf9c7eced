//! The memory between the image and the end of RAM: the heap grows into it from below, chunks for stacks come from above.

/// Size of a chunk: what a stack is committed by. Four pages, so that most threads never fault a second time.
pub const CHUNK: usize = 16 << 10;

/// What is neither the heap's nor a stack's, and the chunks that were given back.
///
/// Its methods call nothing, so that their need of stack is known; see [`super::zone`].
#[derive(Debug)]
pub struct Zone {
    /// Where the heap ends.
    heap_end: usize,
    /// The lowest chunk ever handed out, or the end of RAM.
    floor: usize,
    /// Where RAM ends.
    top: usize,
    /// The first free chunk; each holds the address of the next, 0 ends the list.
    free: usize,
    free_count: usize,
}

impl Zone {
    /// None.
    #[must_use]
    pub const fn empty() -> Self {
        Self { heap_end: 0, floor: 0, top: 0, free: 0, free_count: 0 }
    }

    /// The memory `[start, end)`.
    ///
    /// # Safety
    /// It is writable, and nobody else's for good.
    #[must_use]
    pub const unsafe fn new(start: usize, end: usize) -> Self {
        let top = end & !(CHUNK - 1);
        Self { heap_end: start, floor: top, top, free: 0, free_count: 0 }
    }

    /// Gives the next `size` bytes to the heap; returns where they start.
    pub fn grow_heap(&mut self, size: usize) -> Option<usize> {
        let start = self.heap_end;
        let end = start.checked_add(size).filter(|end| *end <= self.floor)?;
        self.heap_end = end;
        Some(start)
    }

    /// Takes a chunk: one that was given back, or the next from above.
    pub fn take(&mut self) -> Option<usize> {
        if self.free != 0 {
            let chunk = self.free;
            // SAFETY: a chunk on the list is the zone's, and holds the address of the next.
            self.free = unsafe { *core::ptr::with_exposed_provenance::<usize>(chunk) };
            self.free_count -= 1;
            return Some(chunk);
        }
        let chunk = self.floor.checked_sub(CHUNK).filter(|chunk| *chunk >= self.heap_end)?;
        self.floor = chunk;
        Some(chunk)
    }

    /// Takes a chunk back.
    ///
    /// # Safety
    /// It came from [`take`](Self::take), and nobody uses it any more.
    pub unsafe fn give(&mut self, chunk: usize) {
        // SAFETY: as the caller promises.
        unsafe { *core::ptr::with_exposed_provenance_mut::<usize>(chunk) = self.free };
        self.free = chunk;
        self.free_count += 1;
    }

    /// Bytes that neither the heap nor a stack has.
    #[must_use]
    pub fn unused(&self) -> usize {
        self.floor - self.heap_end + self.free_count * CHUNK
    }

    /// What has never been used: between the heap and the chunks.
    #[must_use]
    pub fn untouched(&self) -> (usize, usize) {
        (self.heap_end, self.floor)
    }

    /// The free chunks. All but the first 8 bytes of each are content that does not matter.
    pub fn free_chunks(&self) -> impl Iterator<Item = usize> + '_ {
        let first = (self.free != 0).then_some(self.free);
        core::iter::successors(first, |chunk| {
            // SAFETY: a chunk on the list is the zone's, and holds the address of the next.
            let next = unsafe { *core::ptr::with_exposed_provenance::<usize>(*chunk) };
            (next != 0).then_some(next)
        })
    }

    /// Whether `[from, from + size)` is made of chunks, for who maps them.
    #[must_use]
    pub fn holds_chunk(&self, chunk: usize) -> bool {
        (self.floor..self.top).contains(&chunk) && chunk.is_multiple_of(CHUNK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{alloc::alloc, vec::Vec};
    use core::alloc::Layout;
    use proptest::prelude::*;

    fn memory(chunks: usize) -> usize {
        let layout = Layout::from_size_align(chunks * CHUNK, CHUNK).unwrap();
        // SAFETY: not of size 0. Leaked: tests are short.
        unsafe { alloc(layout) }.expose_provenance()
    }

    proptest! {
        /// Heap and chunks never overlap, no chunk is handed out twice, and nothing is lost.
        #[test]
        fn every_byte_has_one_owner(steps in proptest::collection::vec((0..3_u8, 0..64_usize), 0..120)) {
            let start = memory(16);
            let end = start + 16 * CHUNK;
            // SAFETY: just allocated.
            let mut zone = unsafe { Zone::new(start, end) };
            let mut heap_end = start;
            let mut chunks: Vec<usize> = Vec::new();
            let mut returned = 0;
            for (what, n) in steps {
                match what {
                    0 => {
                        let size = n * 512;
                        if let Some(at) = zone.grow_heap(size) {
                            prop_assert_eq!(at, heap_end);
                            heap_end += size;
                        }
                    }
                    1 => match zone.take() {
                        Some(chunk) => {
                            prop_assert!(chunk >= heap_end && chunk + CHUNK <= end);
                            prop_assert!(!chunks.contains(&chunk));
                            prop_assert!(zone.holds_chunk(chunk));
                            returned -= i32::from(returned > 0);
                            chunks.push(chunk);
                        }
                        None => prop_assert!(returned == 0),
                    },
                    _ if !chunks.is_empty() => {
                        let chunk = chunks.swap_remove(n % chunks.len());
                        // SAFETY: taken above.
                        unsafe { zone.give(chunk) };
                        returned += 1;
                    }
                    _ => {}
                }
                prop_assert_eq!(zone.unused(), end - heap_end - chunks.len() * CHUNK);
                prop_assert_eq!(zone.free_chunks().count() as i32, returned);
                prop_assert!(zone.free_chunks().all(|c| !chunks.contains(&c)));
            }
        }
    }
}
