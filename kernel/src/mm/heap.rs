//! The heap: slabs of equal blocks for what is small, arenas with `linked_list_allocator` for what
//! slabs do not fit, and whole pages of the zone for what is large.
//!
//! Small blocks cost a few instructions to take and to give. Slabs, arenas and large blocks go back
//! to the zone when they are empty, so all that is free is of use for each of them and for stacks.

use core::{alloc::Layout, ptr::NonNull};

use super::{
    arena::{self, Arenas},
    classes,
    slab::{Given, Slabs, slab_size},
    zone::{PAGE, Zone},
};

/// Where the heap's memory comes from.
pub trait Source {
    /// Lends the zone to `f`.
    fn zone<R>(&self, f: impl FnOnce(&mut Zone) -> R) -> R;

    /// Memory that was free is about to be used.
    fn taken(&self, from: usize, to: usize);

    /// Memory is free as soon as this returns.
    fn given(&self, from: usize, to: usize);
}

/// The allocator.
pub struct Heap<S> {
    source: S,
    small: [Slabs; classes::COUNT],
    arenas: Arenas,
    used: usize,
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
            small: [const { Slabs::new() }; classes::COUNT],
            arenas: Arenas::new(),
            used: 0,
        }
    }

    /// Allocates; `None` when there is no memory, or so little that less than `keep` bytes would be
    /// left in the zone. `layout` is not of size 0.
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
            None if arena::serve(layout) => {
                let block = self.middling(layout, keep)?;
                self.used += layout.size();
                Some(block)
            }
            None => {
                let pages = pages(layout.size());
                let block = self.run(pages, layout.align(), keep)?;
                self.used += pages * PAGE;
                Some(block)
            }
        }
    }

    /// Takes a block back.
    ///
    /// # Safety
    /// `block` came from [`allocate`](Self::allocate) with this layout, and nothing uses it any
    /// more.
    #[inline]
    pub unsafe fn free(&mut self, block: NonNull<u8>, layout: Layout) {
        match classes::of(layout) {
            Some(class) => {
                let size = classes::SIZES[class];
                self.used -= size;
                if self.was_stand_in(block) {
                    // SAFETY: as the caller promises; it is a run of its own.
                    return unsafe { self.give(block, pages(size)) };
                }
                // SAFETY: as the caller promises; the layout leads to the class that it came from.
                if let Given::Empty(slab) = unsafe { self.small[class].give(class, block) } {
                    // SAFETY: nothing uses an empty slab.
                    unsafe { self.give(slab.cast(), pages(slab_size(class))) };
                }
            }
            None if arena::serve(layout) => {
                self.used -= layout.size();
                if self.was_stand_in(block) {
                    // SAFETY: as the caller promises; it is a run of its own.
                    return unsafe { self.give(block, pages(layout.size())) };
                }
                // SAFETY: as the caller promises.
                if let Some(arena) = unsafe { self.arenas.give(block, layout) } {
                    // SAFETY: nothing uses an empty arena.
                    unsafe { self.give(arena, pages(arena::SIZE)) };
                }
            }
            None => {
                let pages = pages(layout.size());
                self.used -= pages * PAGE;
                // SAFETY: as the caller promises; it is a run of its own.
                unsafe { self.give(block, pages) };
            }
        }
    }

    /// Whether a block of `old` serves for `new_size` bytes too, with no memory lost.
    #[must_use]
    pub fn fits_in_place(old: Layout, new_size: usize) -> bool {
        let Ok(new) = Layout::from_size_align(new_size, old.align()) else { return false };
        match (classes::of(old), classes::of(new)) {
            (Some(old), Some(new)) => old == new,
            (None, None) if !arena::serve(old) && !arena::serve(new) => {
                pages(old.size()) == pages(new_size)
            }
            _ => false,
        }
    }

    /// Bytes handed out.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used
    }

    /// Bytes of the heap's that blocks without a slab could still have.
    #[must_use]
    pub fn free_bytes(&self) -> usize {
        self.arenas.free()
    }

    /// Returns slabs and arenas to the zone that are empty and kept for the next block; false if
    /// there were none.
    pub fn shrink(&mut self) -> bool {
        let mut any = false;
        for class in 0..classes::COUNT {
            if let Some(slab) = self.small[class].release_empty() {
                // SAFETY: nothing uses an empty slab.
                unsafe { self.give(slab.cast(), pages(slab_size(class))) };
                any = true;
            }
        }
        if let Some(arena) = self.arenas.release_empty() {
            // SAFETY: nothing uses an empty arena.
            unsafe { self.give(arena, pages(arena::SIZE)) };
            any = true;
        }
        any
    }

    #[cold]
    fn refill(&mut self, class: usize, keep: usize) -> Option<NonNull<u8>> {
        let size = slab_size(class);
        let Some(slab) = self.run(pages(size), size, keep) else {
            return self.stand_in(pages(classes::SIZES[class]), keep);
        };
        // SAFETY: just taken, of the size and alignment of a slab.
        unsafe { self.small[class].add(slab) };
        self.small[class].take(class)
    }

    fn middling(&mut self, layout: Layout, keep: usize) -> Option<NonNull<u8>> {
        if let Some(block) = self.arenas.take(layout) {
            return Some(block);
        }
        let Some(arena) = self.run(pages(arena::SIZE), arena::SIZE, keep) else {
            return self.stand_in(pages(layout.size()), keep);
        };
        // SAFETY: just taken, of the size and alignment of an arena.
        unsafe { self.arenas.add(arena) };
        self.arenas.take(layout)
    }

    /// A run of its own for a block that a slab or an arena should hold: there are pages, but not
    /// enough adjacent ones for those.
    fn stand_in(&mut self, pages: usize, keep: usize) -> Option<NonNull<u8>> {
        let block = self.run(pages, PAGE, keep)?;
        self.source.zone(|z| z.note_stand_in(block.as_ptr().addr()));
        Some(block)
    }

    fn was_stand_in(&self, block: NonNull<u8>) -> bool {
        let at = block.as_ptr().addr();
        at.is_multiple_of(PAGE) && self.source.zone(|z| z.was_stand_in(at))
    }

    fn run(&mut self, pages: usize, align: usize, keep: usize) -> Option<NonNull<u8>> {
        let mut from = self.source.zone(|z| z.take_run(pages, align, keep));
        if from.is_none() && self.shrink() {
            from = self.source.zone(|z| z.take_run(pages, align, keep));
        }
        let from = from?;
        self.source.taken(from, from + pages * PAGE);
        NonNull::new(core::ptr::with_exposed_provenance_mut(from))
    }

    /// # Safety
    /// The pages came from [`run`](Self::run), and nothing uses them any more.
    unsafe fn give(&self, at: NonNull<u8>, pages: usize) {
        let from = at.as_ptr().expose_provenance();
        // Before it can be taken again: a stack may grow as soon as the zone has it.
        self.source.given(from, from + pages * PAGE);
        // SAFETY: as the caller promises.
        self.source.zone(|z| unsafe { z.give(from, pages) });
    }
}

fn pages(size: usize) -> usize {
    size.div_ceil(PAGE)
}

#[cfg(test)]
mod tests;
