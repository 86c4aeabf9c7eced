//! Free memory that the guest has given up: it is put aside until it is needed, so that nothing is written into it, not even where the next free block is.

use core::{alloc::Layout, ptr::NonNull};

use super::{Heap, PAGE, Source};

/// Free memory that is put aside, so that nothing is written into it, not even where the next free block is: address and size, the larger first.
pub(super) struct GivenUp {
    pieces: [(usize, usize); MOST],
    count: usize,
}

/// Free memory is given up in pieces of these sizes; so many of each at most.
const PIECES: [(usize, usize); 4] = [(1 << 20, 64), (128 << 10, 32), (16 << 10, 32), (PAGE, 32)];
const MOST: usize = 64 + 32 + 32 + 32;

impl GivenUp {
    pub(super) const fn nothing() -> Self {
        Self { pieces: [(0, 0); MOST], count: 0 }
    }

    /// Its bytes.
    pub(super) fn size(&self) -> usize {
        self.pieces[..self.count].iter().map(|(_, size)| size).sum()
    }
}

impl<S: Source> Heap<S> {
    /// Puts free memory aside until it is needed, in whole pages, and hands each piece to `f`: from, to. Its content does not matter until the source is told that it is
    /// [wanted again](Source::wanted_again).
    pub fn give_up(&mut self, mut f: impl FnMut(usize, usize)) {
        let aside = &mut self.given_up;
        for (size, most) in PIECES {
            let Ok(layout) = Layout::from_size_align(size, PAGE) else { continue };
            let before = aside.pieces[..aside.count].iter().filter(|(_, s)| *s == size).count();
            for _ in before..most {
                let Ok(block) = self.list.allocate_first_fit(layout) else { break };
                let from = block.as_ptr().expose_provenance();
                aside.pieces[aside.count] = (from, size);
                aside.count += 1;
                f(from, from + size);
            }
        }
    }

    /// Takes back the smallest piece that was given up and has room for `size` bytes.
    pub(super) fn take_back(&mut self, size: usize) -> bool {
        let pieces = &self.given_up.pieces[..self.given_up.count];
        let fitting = pieces.iter().enumerate().filter(|(_, (_, room))| *room >= size);
        let Some(which) = fitting.min_by_key(|(_, (_, room))| *room).map(|(which, _)| which) else {
            return false;
        };
        self.take_back_piece(which);
        true
    }

    /// Takes back all that was given up.
    pub(super) fn take_back_all(&mut self) -> bool {
        let any = self.given_up.count > 0;
        while self.given_up.count > 0 {
            self.take_back_piece(self.given_up.count - 1);
        }
        any
    }

    fn take_back_piece(&mut self, which: usize) {
        let aside = &mut self.given_up;
        let (from, size) = aside.pieces[which];
        aside.count -= 1;
        aside.pieces[which] = aside.pieces[aside.count];
        self.source.wanted_again(from, from + size);
        let block = NonNull::new(core::ptr::with_exposed_provenance_mut(from));
        if let (Some(block), Ok(layout)) = (block, Layout::from_size_align(size, PAGE)) {
            // SAFETY: `give_up` took it with this layout, and it is on the list of pieces no more.
            unsafe { self.list.deallocate(block, layout) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            super::{
                classes,
                slab::slab_size,
                zone::{CHUNK, Zone},
            },
            tests::{Block, layout, memory},
        },
        *,
    };
    use alloc::vec::Vec;
    use core::cell::RefCell;
    use proptest::prelude::*;

    proptest! {
        /// What was given up is whole until it is wanted again, and is not lost.
        #[test]
        fn memory_given_up_is_not_touched_and_comes_back(
            steps in proptest::collection::vec((0..4_u8, 1..60_000_usize), 1..120)
        ) {
            struct Aside(RefCell<Zone>, RefCell<Vec<(usize, usize)>>);
            impl Source for &Aside {
                fn zone<R>(&self, f: impl FnOnce(&mut Zone) -> R) -> R {
                    f(&mut self.0.borrow_mut())
                }
                fn wanted_again(&self, from: usize, to: usize) {
                    let mut aside = self.1.borrow_mut();
                    let which = aside.iter().position(|piece| *piece == (from, to));
                    aside.swap_remove(which.expect("it was given up"));
                }
            }
            let source = Aside(memory(1 << 20).0, RefCell::default());
            let mut heap = Heap::new(&source);
            let mut blocks: Vec<Block> = Vec::new();
            for (what, size) in steps {
                match what {
                    0 | 1 => {
                        let layout = layout(size, 8);
                        if let Some(at) = heap.allocate(layout, 0) {
                            blocks.push(Block::fill(at, layout, size as u8));
                        }
                    }
                    2 if !blocks.is_empty() => {
                        let block = blocks.swap_remove(size % blocks.len());
                        prop_assert!(block.is_whole());
                        // SAFETY: allocated above with this layout.
                        unsafe { heap.free(block.0, block.1) };
                    }
                    _ => heap.give_up(|from, to| {
                        assert!(from.is_multiple_of(PAGE) && to.is_multiple_of(PAGE));
                        let bytes = core::ptr::with_exposed_provenance_mut::<u8>(from);
                        // SAFETY: free memory of this test's zone, which nobody is to look at.
                        unsafe { bytes.write_bytes(0xee, to - from) };
                        source.1.borrow_mut().push((from, to));
                    }),
                }
                for &(from, to) in source.1.borrow().iter() {
                    let bytes = core::ptr::with_exposed_provenance::<u8>(from);
                    // SAFETY: as above.
                    let bytes = unsafe { core::slice::from_raw_parts(bytes, to - from) };
                    prop_assert!(bytes.iter().all(|b| *b == 0xee));
                }
            }
            prop_assert!(blocks.iter().all(Block::is_whole));
            for block in blocks {
                // SAFETY: allocated above with this layout.
                unsafe { heap.free(block.0, block.1) };
            }
            // Who needs more than is left makes all of it come back, and nothing is lost but a slab of each class that may stay.
            prop_assert!(heap.allocate(layout(2 << 20, 8), 0).is_none());
            prop_assert!(source.1.borrow().is_empty());
            let slabs: usize = (0..classes::COUNT).map(slab_size).sum();
            let unused = source.0.borrow().unused();
            prop_assert!(heap.list_free() + unused + slabs >= (1 << 20) - 2 * CHUNK);
        }
    }
}
