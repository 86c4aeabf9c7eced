//! Slabs: pieces of memory cut into blocks of one size.
//!
//! A slab begins with its header and is aligned to its size, so a block's address leads to it.
//! Blocks are cut off as they are needed: what was never used is never touched.

use core::{cell::Cell, ptr::NonNull};

use super::classes;
use crate::list::{Linked, Links, List};

/// Size of the slabs of a class.
pub const fn slab_size(class: usize) -> usize {
    if classes::SIZES[class] <= 512 { 16 << 10 } else { 64 << 10 }
}

/// What a slab begins with.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Slab {
    links: Links<Self>,
    /// Blocks that were given back; each holds the address of the next.
    free: Cell<Option<NonNull<Free>>>,
    /// Where the next block is cut off.
    uncut: Cell<u32>,
    /// Blocks in use.
    live: Cell<u32>,
}

#[derive(Debug)]
struct Free {
    next: Option<NonNull<Free>>,
}

const _: () = assert!(size_of::<Slab>() == 64);

// SAFETY: a field.
unsafe impl Linked for Slab {
    fn links(&self) -> &Links<Self> {
        &self.links
    }
}

/// The slabs of a class that have a block to give.
#[derive(Debug)]
pub struct Slabs(List<Slab>);

/// What giving a block back led to.
#[derive(Debug)]
pub enum Given {
    /// Nothing more.
    Kept,
    /// The slab has no block in use any more; it is the caller's again.
    Empty(NonNull<Slab>),
}

impl Slabs {
    /// None.
    pub const fn new() -> Self {
        Self(List::new())
    }

    /// Takes a block.
    #[inline]
    pub fn take(&self, class: usize) -> Option<NonNull<u8>> {
        let at = self.0.first()?;
        // SAFETY: slabs in the list are alive.
        let slab = unsafe { at.as_ref() };
        let block = match slab.free.get() {
            Some(free) => {
                // SAFETY: a free block holds one.
                slab.free.set(unsafe { free.as_ref() }.next);
                free.cast()
            }
            None => {
                let offset = slab.uncut.get();
                slab.uncut.set(offset + classes::SIZES[class] as u32);
                // SAFETY: a slab in the list that has no free block has an uncut one.
                unsafe { at.cast::<u8>().add(offset as usize) }
            }
        };
        slab.live.set(slab.live.get() + 1);
        if slab.is_full(class) {
            self.0.pop_front();
        }
        Some(block)
    }

    /// Takes a block back.
    ///
    /// # Safety
    /// It came from [`take`](Self::take) of this class, and nothing uses it any more.
    #[inline]
    pub unsafe fn give(&self, class: usize, block: NonNull<u8>) -> Given {
        let at = block.as_ptr().map_addr(|a| a & !(slab_size(class) - 1)).cast::<Slab>();
        // SAFETY: the block lies in a slab, which begins there, and is alive while a block of it is
        // in use.
        let (at, slab) = unsafe { (NonNull::new_unchecked(at), &*at) };
        let was_full = slab.is_full(class);
        let free = block.cast::<Free>();
        // SAFETY: the block is the slab's again, of at least 16 bytes, and aligned to 16.
        unsafe { free.write(Free { next: slab.free.get() }) };
        slab.free.set(Some(free));
        slab.live.set(slab.live.get() - 1);
        if was_full {
            // SAFETY: a full slab is in no list, and stays until it is taken out below.
            unsafe { self.0.push_back(at) };
        }
        // The last one stays: a program that takes and gives a single block pays for a slab once.
        if slab.live.get() == 0 && self.has_another() {
            // SAFETY: alive.
            unsafe { List::remove(at) };
            return Given::Empty(at);
        }
        Given::Kept
    }

    /// A slab that is kept though it is empty; it is the caller's again. Only the first can be: it
    /// was alone when it became empty, and what comes later comes behind it.
    pub fn release_empty(&self) -> Option<NonNull<Slab>> {
        // SAFETY: slabs in the list are alive.
        let first = self.0.first().filter(|first| unsafe { first.as_ref() }.live.get() == 0)?;
        // SAFETY: as above.
        unsafe { List::remove(first) };
        Some(first)
    }

    /// Adds memory to cut blocks off.
    ///
    /// # Safety
    /// `memory` is of [`slab_size`], aligned to it, and the caller's until it is given back as
    /// empty.
    pub unsafe fn add(&self, memory: NonNull<u8>) {
        let slab = memory.cast::<Slab>();
        let header = Slab {
            links: Links::new(),
            free: Cell::new(None),
            uncut: Cell::new(size_of::<Slab>() as u32),
            live: Cell::new(0),
        };
        // SAFETY: as the caller promises.
        unsafe {
            slab.write(header);
            self.0.push_back(slab);
        }
    }

    fn has_another(&self) -> bool {
        // SAFETY: slabs in the list are alive.
        self.0.first().is_some_and(|first| unsafe { List::after(first) }.is_some())
    }
}

impl Slab {
    fn is_full(&self, class: usize) -> bool {
        self.free.get().is_none()
            && self.uncut.get() as usize + classes::SIZES[class] > slab_size(class)
    }
}
