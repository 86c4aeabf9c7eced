//! The heap: slabs of equal blocks for what is small, `linked_list_allocator` behind them.
//!
//! Small blocks cost a few instructions to take and to give. The list allocator, whose search is linear, sees only slabs
//! and large blocks, and these keep its list short.

mod given_up;

use core::{alloc::Layout, ptr::NonNull};

use linked_list_allocator::Heap as ListHeap;

use given_up::GivenUp;

use super::{
    classes,
    slab::{Given, Slabs, slab_size},
    zone::{CHUNK, Zone},
};

/// Least step by which the heap grows.
const STEP: usize = 64 << 10;
const PAGE: usize = 4096;

/// Where the heap's memory comes from.
pub trait Source {
    /// Lends the zone to `f`.
    fn zone<R>(&self, f: impl FnOnce(&mut Zone) -> R) -> R;

    /// Memory that was [given up](Heap::give_up) is about to be used again.
    fn wanted_again(&self, from: usize, to: usize);
}

/// The allocator.
pub struct Heap<S> {
    source: S,
    list: ListHeap,
    small: [Slabs; classes::COUNT],
    used: usize,
    given_up: GivenUp,
}

impl<S> core::fmt::Debug for Heap<S> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Heap").field("used", &self.used).finish_non_exhaustive()
    }
}

// SAFETY: its pointers lead into memory that belongs to the heap alone.
unsafe impl<S: Send> Send for Heap<S> {}

impl<S: Source> Heap<S> {
    /// An allocator without memory.
    pub const fn new(source: S) -> Self {
        Self {
            source,
            list: ListHeap::empty(),
            small: [const { Slabs::new() }; classes::COUNT],
            used: 0,
            given_up: GivenUp::nothing(),
        }
    }

    /// Allocates; `None` when there is no memory, or so little that only `keep` bytes would be left that the heap has not grown into.
    /// `layout` is not of size 0.
    #[inline]
    pub fn allocate(&mut self, layout: Layout, keep: usize) -> Option<NonNull<u8>> {
        match classes::of(layout) {
            Some(class) => {
                let block = match self.small[class].take(class) {
                    Some(block) => block,
                    None => self.refill(class, keep)?,
                };
                self.used += classes::SIZES[class];
                Some(block)
            }
            None => {
                let block = self.large(layout, keep)?;
                self.used += layout.size();
                Some(block)
            }
        }
    }

    /// Takes a block back.
    ///
    /// # Safety
    /// `block` came from [`allocate`](Self::allocate) with this layout, and nobody uses it any more.
    #[inline]
    pub unsafe fn free(&mut self, block: NonNull<u8>, layout: Layout) {
        match classes::of(layout) {
            Some(class) => {
                self.used -= classes::SIZES[class];
                // SAFETY: as the caller promises; the layout leads to the class that it came from.
                if let Given::Empty(slab) = unsafe { self.small[class].give(class, block) } {
                    // SAFETY: alive until the next line.
                    let chunk = unsafe { slab.as_ref() }.chunk;
                    // SAFETY: an empty slab is nobody's, and came from where its header says.
                    unsafe {
                        if chunk {
                            self.source.zone(|z| z.give(slab.as_ptr().expose_provenance()));
                        } else {
                            self.list.deallocate(slab.cast(), slab_layout(class));
                        }
                    }
                }
            }
            None => {
                self.used -= layout.size();
                // SAFETY: as the caller promises; what has no class came from the list.
                unsafe { self.list.deallocate(block, layout) };
            }
        }
    }

    /// Whether a block of `old` serves for `new_size` bytes too, with no memory lost.
    #[must_use]
    pub fn fits_in_place(old: Layout, new_size: usize) -> bool {
        let Ok(new) = Layout::from_size_align(new_size, old.align()) else { return false };
        matches!((classes::of(old), classes::of(new)), (Some(old), Some(new)) if old == new)
    }

    /// Bytes handed out.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used
    }

    /// Bytes that the list has and that are not handed out.
    #[must_use]
    pub fn list_free(&self) -> usize {
        self.list.free() + self.given_up.size()
    }

    #[cold]
    fn refill(&mut self, class: usize, keep: usize) -> Option<NonNull<u8>> {
        let layout = slab_layout(class);
        let (slab, chunk) = match self.large(layout, keep) {
            Some(slab) => (slab, false),
            // The chunks that stacks gave back, where they are large enough.
            None if layout.size() == CHUNK => {
                let chunk = self
                    .source
                    .zone(|z| if z.unused() >= CHUNK + keep { z.take() } else { None })?;
                (NonNull::new(core::ptr::with_exposed_provenance_mut(chunk))?, true)
            }
            None => return None,
        };
        // SAFETY: just taken, of the size and alignment of a slab.
        unsafe { self.small[class].add(slab, chunk) };
        self.small[class].take(class)
    }

    fn large(&mut self, layout: Layout, keep: usize) -> Option<NonNull<u8>> {
        if let Ok(block) = self.list.allocate_first_fit(layout) {
            return Some(block);
        }
        // What the list loses at both ends to alignment and to its own headers.
        let need = layout.size().checked_add(layout.align())?.checked_add(64)?;
        let need = need.checked_next_multiple_of(PAGE)?;
        if self.take_back(need)
            && let Ok(block) = self.list.allocate_first_fit(layout)
        {
            return Some(block);
        }
        let grown = self.grow(need.max(STEP), keep)
            || self.grow(need, keep)
            || self.grow_by_what_is_left(layout, keep);
        if grown || self.take_back_all() { self.list.allocate_first_fit(layout).ok() } else { None }
    }

    /// At the very end the block may still fit behind the hole at the heap's end.
    fn grow_by_what_is_left(&mut self, layout: Layout, keep: usize) -> bool {
        let left = self.source.zone(|z| {
            let (from, to) = z.untouched();
            (to - from).saturating_sub(keep)
        });
        let left = left & !(PAGE - 1);
        left > 0 && left + self.list.free() >= layout.size() && self.grow(left, keep)
    }

    fn grow(&mut self, size: usize, keep: usize) -> bool {
        let Some(start) = self.source.zone(|z| z.grow_heap(size, keep)) else { return false };
        // SAFETY: the zone gave it to the heap for good, right behind what it gave before.
        unsafe {
            if self.list.size() == 0 {
                self.list.init(core::ptr::with_exposed_provenance_mut(start), size);
            } else {
                self.list.extend(size);
            }
        }
        true
    }
}

fn slab_layout(class: usize) -> Layout {
    let size = slab_size(class);
    // A power of two.
    Layout::from_size_align(size, size).expect("slabs are small")
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{alloc::alloc, vec::Vec};
    use core::cell::RefCell;
    use proptest::prelude::*;

    pub(super) struct Memory(pub(super) RefCell<Zone>);

    impl Source for &Memory {
        fn zone<R>(&self, f: impl FnOnce(&mut Zone) -> R) -> R {
            f(&mut self.0.borrow_mut())
        }

        fn wanted_again(&self, _: usize, _: usize) {}
    }

    pub(super) fn memory(size: usize) -> Memory {
        let layout = Layout::from_size_align(size, CHUNK).unwrap();
        // SAFETY: not of size 0. Leaked: tests are short.
        let start = unsafe { alloc(layout) }.expose_provenance();
        // SAFETY: just allocated. Not aligned at its start, as the end of an image is not.
        Memory(RefCell::new(unsafe { Zone::new(start + 4096, start + size) }))
    }

    pub(super) fn layout(size: usize, align: usize) -> Layout {
        Layout::from_size_align(size, align).unwrap()
    }

    /// Fills a block, and finds out whether another wrote into it.
    pub(super) struct Block(pub(super) NonNull<u8>, pub(super) Layout, u8);

    impl Block {
        pub(super) fn fill(at: NonNull<u8>, layout: Layout, mark: u8) -> Self {
            assert!(at.as_ptr().addr().is_multiple_of(layout.align()));
            // SAFETY: the block's.
            unsafe { at.as_ptr().write_bytes(mark, layout.size()) };
            Self(at, layout, mark)
        }

        pub(super) fn is_whole(&self) -> bool {
            // SAFETY: the block's.
            let bytes = unsafe { core::slice::from_raw_parts(self.0.as_ptr(), self.1.size()) };
            bytes.iter().all(|b| *b == self.2)
        }
    }

    proptest! {
        #[test]
        fn blocks_are_apart_and_come_back(
            steps in proptest::collection::vec((any::<bool>(), 1..20_000_usize, 0..8_u32, any::<u8>()), 1..300)
        ) {
            let memory = memory(1 << 20);
            let mut heap = Heap::new(&memory);
            let mut blocks: Vec<Block> = Vec::new();
            for (take, size, align, mark) in steps {
                // Mostly small ones.
                let size = if size % 4 == 0 { size } else { size % 600 + 1 };
                if take || blocks.is_empty() {
                    let layout = layout(size, 1 << align);
                    if let Some(at) = heap.allocate(layout, 0) {
                        blocks.push(Block::fill(at, layout, mark));
                    }
                } else {
                    let block = blocks.swap_remove(size % blocks.len());
                    prop_assert!(block.is_whole());
                    // SAFETY: allocated above with this layout.
                    unsafe { heap.free(block.0, block.1) };
                }
            }
            prop_assert!(blocks.iter().all(Block::is_whole));
            for block in blocks {
                // SAFETY: allocated above with this layout.
                unsafe { heap.free(block.0, block.1) };
            }
            prop_assert_eq!(heap.used(), 0);
            // One slab of each class may stay; all else is free again.
            let slabs: usize = (0..classes::COUNT).map(slab_size).sum();
            let unused = memory.0.borrow().unused();
            prop_assert!(heap.list_free() + unused + slabs >= (1 << 20) - 2 * CHUNK);
        }
    }

    #[test]
    fn small_blocks_find_room_where_large_ones_do_not() {
        let memory = memory(256 << 10);
        let mut heap = Heap::new(&memory);
        // A stack takes a chunk and gives it back, above one that another stack keeps; all else is the heap's.
        let chunk = memory.0.borrow_mut().take().unwrap();
        memory.0.borrow_mut().take().unwrap();
        while heap.allocate(layout(4096, 4096), 0).is_some() {}
        // SAFETY: taken above.
        unsafe { memory.0.borrow_mut().give(chunk) };
        assert_eq!(heap.allocate(layout(9000, 8), 0), None);
        let block = heap.allocate(layout(100, 8), 0).unwrap();
        assert!((chunk..chunk + CHUNK).contains(&block.as_ptr().addr()));
    }

    #[test]
    fn an_exhausted_heap_says_so_and_recovers() {
        let memory = memory(1 << 20);
        let mut heap = Heap::new(&memory);
        let large = layout(100 << 10, 8);
        let blocks: Vec<_> = core::iter::from_fn(|| heap.allocate(large, 0)).collect();
        assert!(blocks.len() >= 9, "{} of 10", blocks.len());
        assert_eq!(heap.allocate(layout(isize::MAX as usize - 7, 8), 0), None);
        // SAFETY: allocated above with this layout.
        blocks.into_iter().for_each(|b| unsafe { heap.free(b, large) });
        assert!(heap.allocate(layout(900 << 10, 8), 0).is_some());
    }

    #[test]
    fn what_is_to_be_kept_is_kept() {
        let memory = memory(1 << 20);
        let mut heap = Heap::new(&memory);
        let keep = 300 << 10;
        for size in [1000, 20_000] {
            while heap.allocate(layout(size, 8), keep).is_some() {}
            assert!(memory.0.borrow().unused() >= keep);
        }
        assert!(heap.allocate(layout(20_000, 8), 0).is_some());
        assert!(heap.allocate(layout(1000, 8), 0).is_some());
    }

    #[test]
    fn a_block_serves_for_all_sizes_of_its_class() {
        let fits = |old, new| Heap::<&Memory>::fits_in_place(layout(old, 8), new);
        assert!(fits(100, 112));
        assert!(!fits(100, 113));
        assert!(!fits(100, 90));
        assert!(!fits(100_000, 100_001));
    }
}
