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
    /// The first free chunk; each holds the address of the next, 0 ends the list.
    free: usize,
    free_count: usize,
}

impl Zone {
    /// None.
    #[must_use]
    pub const fn empty() -> Self {
        Self { heap_end: 0, floor: 0, free: 0, free_count: 0 }
    }

    /// The memory `[start, end)`.
    ///
    /// # Safety
    /// It is writable, and nobody else's for good.
    #[must_use]
    pub const unsafe fn new(start: usize, end: usize) -> Self {
        Self { heap_end: start, floor: end & !(CHUNK - 1), free: 0, free_count: 0 }
    }

    /// Gives the next `size` bytes to the heap, if `keep` bytes are left behind them; returns where they start.
    pub fn grow_heap(&mut self, size: usize, keep: usize) -> Option<usize> {
        let start = self.heap_end;
        let end = start.checked_add(size)?;
        let needed = end.checked_add(keep)?;
        if needed > self.floor {
            self.raise_floor();
        }
        (needed <= self.floor).then(|| {
            self.heap_end = end;
            start
        })
    }

    /// Gives up chunks that were given back, as far as they are the lowest of all.
    fn raise_floor(&mut self) {
        let mut rest = sorted(self.free, self.free_count);
        while rest != 0 && rest == self.floor {
            // SAFETY: a chunk on the list is the zone's, and holds the address of the next.
            rest = unsafe { link(rest).read() };
            self.floor += CHUNK;
            self.free_count -= 1;
        }
        // The highest first, so that the lowest are taken last.
        self.free = 0;
        while rest != 0 {
            // SAFETY: as above.
            let next = unsafe { link(rest).replace(self.free) };
            self.free = rest;
            rest = next;
        }
    }

    /// Takes a chunk: one that was given back, or the next from above.
    pub fn take(&mut self) -> Option<usize> {
        if self.free != 0 {
            let chunk = self.free;
            // SAFETY: a chunk on the list is the zone's, and holds the address of the next.
            self.free = unsafe { link(chunk).read() };
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
        unsafe { link(chunk).write(self.free) };
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
            let next = unsafe { link(*chunk).read() };
            (next != 0).then_some(next)
        })
    }
}

/// Where a free chunk holds the address of the next.
fn link(chunk: usize) -> *mut usize {
    core::ptr::with_exposed_provenance_mut(chunk)
}

/// Sorts a list of `count` free chunks, the lowest first, by merging halves.
fn sorted(list: usize, count: usize) -> usize {
    if count < 2 {
        return list;
    }
    let mut before = list;
    for _ in 1..count / 2 {
        // SAFETY: a chunk on the list is the zone's, and holds the address of the next; likewise below.
        before = unsafe { link(before).read() };
    }
    // SAFETY: as above.
    let second = unsafe { link(before).replace(0) };
    let (mut a, mut b) = (sorted(list, count / 2), sorted(second, count - count / 2));
    let mut first = 0;
    let mut last = &raw mut first;
    while a != 0 || b != 0 {
        let lower = if b == 0 || (a != 0 && a < b) { &mut a } else { &mut b };
        // SAFETY: `last` is `first`, or in a chunk of the list.
        unsafe { last.write(*lower) };
        last = link(*lower);
        // SAFETY: as above.
        *lower = unsafe { last.read() };
    }
    first
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
            for (what, n) in steps {
                match what {
                    0 => {
                        let (size, keep) = (n * 512, n % 3 * CHUNK);
                        // What is free above the heap and below the lowest chunk in use is the heap's if it wants.
                        let lowest = chunks.iter().copied().min().unwrap_or(end);
                        match zone.grow_heap(size, keep) {
                            Some(at) => {
                                prop_assert_eq!(at, heap_end);
                                heap_end += size;
                                prop_assert!(heap_end + keep <= lowest);
                            }
                            None => prop_assert!(heap_end + size + keep > lowest),
                        }
                    }
                    1 => match zone.take() {
                        Some(chunk) => {
                            prop_assert!(chunk >= heap_end && chunk + CHUNK <= end);
                            prop_assert!(!chunks.contains(&chunk));
                            chunks.push(chunk);
                        }
                        None => prop_assert!(zone.unused() < CHUNK),
                    },
                    _ if !chunks.is_empty() => {
                        let chunk = chunks.swap_remove(n % chunks.len());
                        // SAFETY: taken above.
                        unsafe { zone.give(chunk) };
                    }
                    _ => {}
                }
                prop_assert_eq!(zone.unused(), end - heap_end - chunks.len() * CHUNK);
                prop_assert_eq!(zone.free_chunks().count(), zone.free_count);
                prop_assert!(zone.free_chunks().all(|c| !chunks.contains(&c)));
            }
        }
    }
}
