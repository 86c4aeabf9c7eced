//! The bitmap of page hints, as the VMM reads it while the guest is quiescent; see
//! [`ControlPage::page_hints`](vmm_lite_interface::control::ControlPage::page_hints).

use core::sync::atomic::{
    AtomicU8,
    Ordering::{Relaxed, SeqCst},
    compiler_fence,
};

/// Size of a page, bytes.
pub const PAGE: usize = 4096;

/// One bit a page of RAM.
///
/// A stack may grow, and clear a hint, while the kernel sets others: bytes that both have a part in
/// change by one instruction.
#[derive(Clone, Copy, Debug)]
pub struct Bitmap<'a>(pub &'a [AtomicU8]);

impl Bitmap<'_> {
    /// Bytes that the bitmap of `memory` bytes of RAM takes.
    #[must_use]
    pub const fn len_for(memory: usize) -> usize {
        memory.div_ceil(PAGE).div_ceil(8)
    }

    /// Sets the bits of the pages that lie in `[from, to)` as a whole.
    pub fn set(self, from: usize, to: usize) {
        let last = (to / PAGE).min(self.0.len() * 8);
        let mut page = from.div_ceil(PAGE);
        while page < last {
            if page.is_multiple_of(8) && last - page >= 8 {
                let whole = (last - page) / 8;
                self.0[page / 8..][..whole].iter().for_each(|b| b.store(0xff, Relaxed));
                page += whole * 8;
            } else {
                self.0[page / 8].fetch_or(1 << (page % 8), Relaxed);
                page += 1;
            }
        }
    }

    /// Clears the bits of pages that have any part in `[from, to)`.
    pub fn clear(self, from: usize, to: usize) {
        let last = to.div_ceil(PAGE).min(self.0.len() * 8);
        let mut page = from / PAGE;
        while page < last {
            if page.is_multiple_of(8) && last - page >= 8 {
                let whole = (last - page) / 8;
                self.0[page / 8..][..whole].iter().for_each(|b| b.store(0, Relaxed));
                page += whole * 8;
            } else {
                self.0[page / 8].fetch_and(!(1 << (page % 8)), Relaxed);
                page += 1;
            }
        }
        // The VMM must see the hint cleared before it sees what is written to the page from now on.
        // The CPU keeps stores in their order.
        compiler_fence(SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn only_whole_pages_inside_are_set(
            ranges in proptest::collection::vec((0..400_000_usize, 0..400_000_usize), 0..5)
        ) {
            let pages = 80;
            let bytes = [const { AtomicU8::new(0) }; 10];
            let bitmap = Bitmap(&bytes);
            for (a, b) in &ranges {
                bitmap.set(*a.min(b), *a.max(b));
            }
            for page in 0..pages {
                let inside = |(a, b): &(usize, usize)| {
                    *a.min(b) <= page * PAGE && (page + 1) * PAGE <= *a.max(b)
                };
                let is_set = bitmap.0[page / 8].load(Relaxed) & 1 << (page % 8) != 0;
                prop_assert_eq!(is_set, ranges.iter().any(inside), "page {}", page);
            }
            for (a, b) in &ranges {
                bitmap.clear(*a.min(b), *a.max(b));
            }
            prop_assert!(bytes.iter().all(|b| b.load(Relaxed) == 0));
        }
    }

    #[test]
    fn a_bit_a_page() {
        assert_eq!(Bitmap::len_for(16 << 20), 512);
        assert_eq!(Bitmap::len_for(4097), 1);
    }
}
