//! Arenas: pieces of memory, each with a list allocator, for what slabs do not fit: blocks somewhat
//! larger than theirs, and those with an unusual alignment.
//!
//! An arena begins with its header and is aligned to its size, so a block's address leads to it. It
//! is small, so the list's linear search is short, and one that is empty goes back to the zone.

use core::{alloc::Layout, cell::Cell, ptr::NonNull};

use linked_list_allocator::Heap as ListHeap;

use crate::list::{Linked, Links, List};

/// Size of an arena.
pub const SIZE: usize = 128 << 10;
/// The largest block.
const LARGEST: usize = 16 << 10;
/// The strictest alignment.
const ALIGN: usize = 2048;
/// An arena with less than this free is not searched.
const FULL: usize = 8 << 10;
/// How many arenas are searched before there is a new one.
const SEARCHED: usize = 8;

/// What an arena begins with.
#[repr(C, align(64))]
struct Arena {
    links: Links<Self>,
    heap: ListHeap,
}

// SAFETY: a field.
unsafe impl Linked for Arena {
    fn links(&self) -> &Links<Self> {
        &self.links
    }
}

/// The arenas, of which those with room are in the list.
pub struct Arenas {
    with_room: List<Arena>,
    free: Cell<usize>,
}

/// Whether `layout` is for an arena, slabs left aside.
#[must_use]
pub const fn serve(layout: Layout) -> bool {
    layout.size() <= LARGEST && layout.align() <= ALIGN
}

impl Arenas {
    /// None.
    pub const fn new() -> Self {
        Self { with_room: List::new(), free: Cell::new(0) }
    }

    /// Free bytes in all of them.
    pub fn free(&self) -> usize {
        self.free.get()
    }

    /// Takes a block.
    pub fn take(&self, layout: Layout) -> Option<NonNull<u8>> {
        // SAFETY: arenas in the list are alive; likewise below.
        let arenas = core::iter::successors(self.with_room.first(), |a| unsafe { List::after(*a) });
        for arena in arenas.take(SEARCHED) {
            // SAFETY: as above, and nothing else has its heap.
            let heap = unsafe { &mut (*arena.as_ptr()).heap };
            let before = heap.free();
            if let Ok(block) = heap.allocate_first_fit(layout) {
                let after = heap.free();
                self.free.set(self.free.get() - (before - after));
                if after < FULL {
                    // SAFETY: as above.
                    unsafe { List::remove(arena) };
                }
                return Some(block);
            }
        }
        None
    }

    /// Takes a block back; returns the arena that has become empty by that, which is the caller's
    /// again.
    ///
    /// # Safety
    /// `block` came from [`take`](Self::take) with this layout, and nothing uses it any more.
    pub unsafe fn give(&self, block: NonNull<u8>, layout: Layout) -> Option<NonNull<u8>> {
        let at = block.as_ptr().map_addr(|a| a & !(SIZE - 1)).cast::<Arena>();
        // SAFETY: the block lies in an arena, which begins there, is alive while a block of it is
        // in use, and nothing else has its heap.
        let (arena, heap) = unsafe { (NonNull::new_unchecked(at), &mut (*at).heap) };
        let before = heap.free();
        // SAFETY: as the caller promises.
        unsafe { heap.deallocate(block, layout) };
        let (after, empty) = (heap.free(), heap.used() == 0);
        self.free.set(self.free.get() + (after - before));
        if before < FULL && after >= FULL {
            // SAFETY: in no list while it was full; stays until it is taken out.
            unsafe { self.with_room.push_back(arena) };
        }
        // The last one stays, as with slabs.
        if empty && self.has_another() { Some(self.release(arena)) } else { None }
    }

    /// An arena that is kept though it is empty; it is the caller's again. Only the first can be:
    /// it was alone when it became empty, and no arena is added while there is room in it.
    pub fn release_empty(&self) -> Option<NonNull<u8>> {
        let first = self.with_room.first()?;
        // SAFETY: arenas in the list are alive.
        let empty = unsafe { &(*first.as_ptr()).heap }.used() == 0;
        empty.then(|| self.release(first))
    }

    fn release(&self, arena: NonNull<Arena>) -> NonNull<u8> {
        // SAFETY: alive, until the caller reuses it.
        unsafe {
            List::remove(arena);
            self.free.set(self.free.get() - (*arena.as_ptr()).heap.free());
        }
        arena.cast()
    }

    /// Adds memory to take blocks from.
    ///
    /// # Safety
    /// `memory` is of [`SIZE`], aligned to it, and the caller's until it is given back as empty.
    pub unsafe fn add(&self, memory: NonNull<u8>) {
        const HEADER: usize = size_of::<Arena>();
        let arena = memory.cast::<Arena>();
        // SAFETY: as the caller promises. The list's memory is the rest, and it is not used after
        // it is given back.
        unsafe {
            let heap = ListHeap::new(memory.as_ptr().add(HEADER), SIZE - HEADER);
            self.free.set(self.free.get() + heap.free());
            arena.write(Arena { links: Links::new(), heap });
            self.with_room.push_front(arena);
        }
    }

    fn has_another(&self) -> bool {
        // SAFETY: arenas in the list are alive.
        self.with_room.first().is_some_and(|first| unsafe { List::after(first) }.is_some())
    }
}
