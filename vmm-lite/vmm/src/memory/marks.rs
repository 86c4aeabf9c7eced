//! Marks on the pages that the VMM has written.
//!
//! A summary has a bit for each group of pages with a mark, so that the cost of taking marks
//! depends on their number: at 4 GiB, looking at every word of the bitmap alone took a tenth of a
//! millisecond.

use super::PAGE;
use migrate::page_set::{GROUP, PageSet};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use vm_memory::bitmap::{Bitmap, RefSlice, WithBitmapSlice};

/// Words of a group.
const WORDS: usize = GROUP / 64;

/// One mark for each page of a VM, set or not.
#[derive(Debug)]
pub struct Marks {
    /// Whole groups, one bit for each page.
    words: Box<[AtomicU64]>,
    /// One bit for each group. Set **after** a bit in the group, and cleared before the group's
    /// bits are taken: so the taker gets every mark that was set before it started.
    summary: Box<[AtomicU64]>,
    pages: usize,
}

impl Marks {
    /// No mark on any of `pages` pages.
    #[must_use]
    pub fn none(pages: usize) -> Self {
        let groups = pages.div_ceil(GROUP);
        let zeros = |n: usize| (0..n).map(|_| AtomicU64::new(0)).collect();
        Self { words: zeros(groups * WORDS), summary: zeros(groups.div_ceil(64)), pages }
    }

    /// Whether `page` has a mark.
    #[must_use]
    pub fn has(&self, page: usize) -> bool {
        page < self.pages && self.words[page / 64].load(SeqCst) >> (page % 64) & 1 == 1
    }

    /// Marks `page`; ignores one past the end.
    pub fn set(&self, page: usize) {
        if page < self.pages {
            self.words[page / 64].fetch_or(1 << (page % 64), SeqCst);
            let (group, bit) = (page / GROUP, 1 << (page / GROUP % 64));
            if self.summary[group / 64].load(SeqCst) & bit == 0 {
                self.summary[group / 64].fetch_or(bit, SeqCst);
            }
        }
    }

    /// The marked pages. The marks stay.
    #[must_use]
    pub fn look(&self) -> PageSet {
        self.gather(|word| word.load(SeqCst))
    }

    /// The marked pages. The marks are cleared.
    #[must_use]
    pub fn take(&self) -> PageSet {
        self.gather(|word| word.swap(0, SeqCst))
    }

    fn gather(&self, read: impl Fn(&AtomicU64) -> u64) -> PageSet {
        let mut pages = PageSet::none(self.pages);
        super::looked_at(self.summary.len());
        for (n, summary) in self.summary.iter().enumerate() {
            if summary.load(SeqCst) == 0 {
                continue;
            }
            let mut left = read(summary);
            while left != 0 {
                let group = n * 64 + left.trailing_zeros() as usize;
                left &= left - 1;
                let words = &self.words[group * WORDS..][..WORDS];
                super::looked_at(WORDS);
                pages.insert_group(group, std::array::from_fn(|word| read(&words[word])));
            }
        }
        pages
    }
}

impl<'a> WithBitmapSlice<'a> for Marks {
    type S = RefSlice<'a, Self>;
}

impl Bitmap for Marks {
    fn mark_dirty(&self, offset: usize, len: usize) {
        if let Some(last) = len.checked_sub(1) {
            let last = (offset.saturating_add(last) / PAGE).min(self.pages.saturating_sub(1));
            (offset / PAGE..=last).for_each(|page| self.set(page));
        }
    }

    fn dirty_at(&self, offset: usize) -> bool {
        self.has(offset / PAGE)
    }

    fn slice_at(&self, offset: usize) -> RefSlice<'_, Self> {
        RefSlice::new(self, offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::{collections::BTreeSet, sync::Barrier, thread};

    proptest! {
        #[test]
        fn each_mark_is_taken_once(
            pages in 1_usize..70_000,
            ranges in prop::collection::vec((0_usize..300_000_000, 0_usize..20_000), 0..40),
        ) {
            let marks = Marks::none(pages);
            let mut model = BTreeSet::new();
            for (offset, len) in ranges {
                marks.mark_dirty(offset, len);
                model.extend((offset..offset + len).map(|at| at / PAGE).filter(|n| *n < pages));
            }
            prop_assert!(model.iter().all(|page| marks.has(*page) && marks.dirty_at(page * PAGE)));
            prop_assert!(marks.look().iter().eq(model.iter().copied()));
            prop_assert!(marks.take().iter().eq(model.iter().copied()));
            prop_assert!(marks.take().is_empty() && marks.look().is_empty());
        }
    }

    #[test]
    fn nothing_past_the_end_is_marked() {
        let marks = Marks::none(70);
        marks.mark_dirty(usize::MAX - 1, usize::MAX);
        marks.mark_dirty(69 * PAGE, usize::MAX);
        marks.mark_dirty(70 * PAGE, 1);
        marks.set(70);
        assert_eq!(marks.take().iter().collect::<Vec<_>>(), [69]);
        assert!(!marks.has(70) && !marks.has(usize::MAX / PAGE));
    }

    /// A mark that is set while other threads take marks is in exactly one of the sets taken after
    /// it.
    #[test]
    fn no_mark_is_lost_between_threads() {
        const ROUNDS: usize = 2000;
        let marks = Marks::none(4 * GROUP);
        let round = Barrier::new(3);
        let own = |n: usize, t: usize| (n * 7 + t) % (4 * GROUP);
        thread::scope(|scope| {
            for thread in 0..2 {
                let (marks, round) = (&marks, &round);
                scope.spawn(move || {
                    for n in 0..ROUNDS {
                        round.wait();
                        marks.set(own(n, thread));
                        round.wait();
                    }
                });
            }
            for n in 0..ROUNDS {
                round.wait();
                let mut taken = marks.take();
                round.wait();
                taken.add(&marks.take());
                for thread in 0..2 {
                    assert!(taken.contains(own(n, thread)), "round {n}, thread {thread}");
                }
            }
        });
    }
}
