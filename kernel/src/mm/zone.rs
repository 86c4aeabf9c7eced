//! The memory between the image and the end of RAM, page by page. All that the heap and the stacks
//! have comes from here, and comes back here as soon as it is free.
//!
//! The maps lie at the zone's start and nothing is written into a free page, so that free pages
//! are adjacent as soon as they are free, and their content never matters. The heap takes the
//! lowest pages that serve, stacks take the highest: what is in use for long comes to lie apart
//! from what comes and goes.

use core::ops::Range;

/// Size of a page.
pub const PAGE: usize = 4096;
/// Size of a chunk: what a stack is committed by. Four pages, so that most threads never fault a
/// second time.
pub const CHUNK: usize = 16 << 10;

const BITS: usize = u64::BITS as usize;
/// What a word of the map stands for.
const WORD: usize = BITS * PAGE;

/// Which pages are free.
///
/// Its methods do not recurse and have small frames, so that their need of stack is known; see
/// [`super::zone`].
#[derive(Debug)]
pub struct Zone {
    /// Address of the page that bit 0 stands for: a multiple of [`WORD`].
    base: usize,
    /// Pages that are free.
    free: &'static mut [u64],
    /// First pages of the runs that stand in for a slab or an arena.
    stand_ins: &'static mut [u64],
    /// How many pages are free.
    unused: usize,
    /// The words below this one have no free page.
    low: usize,
    /// The words above this one have no free chunk.
    high: usize,
}

impl Zone {
    /// None.
    #[must_use]
    pub const fn empty() -> Self {
        Self { base: 0, free: &mut [], stand_ins: &mut [], unused: 0, low: 0, high: 0 }
    }

    /// The memory `[start, end)`.
    ///
    /// # Safety
    /// It is writable, and nothing else ever uses it.
    #[must_use]
    pub unsafe fn new(start: usize, end: usize) -> Self {
        let base = start & !(WORD - 1);
        let start = start.next_multiple_of(size_of::<u64>());
        let words = (end - base).div_ceil(WORD);
        let first = (start + 2 * words * size_of::<u64>()).next_multiple_of(PAGE);
        if first >= end {
            return Self::empty();
        }
        let map = |n: usize| {
            let at = core::ptr::with_exposed_provenance_mut::<u64>(start).wrapping_add(n * words);
            // SAFETY: aligned, below `first`, so inside, and apart from the other map.
            unsafe {
                at.write_bytes(0, words);
                core::slice::from_raw_parts_mut(at, words)
            }
        };
        let mut zone =
            Self { base, free: map(0), stand_ins: map(1), unused: 0, low: 0, high: words - 1 };
        zone.set(zone.page(first)..zone.page(end & !(PAGE - 1)));
        zone
    }

    /// Takes `pages` pages, the lowest that are adjacent, free, and begin at a multiple of `align`
    /// bytes, a power of two; returns where they start. `None` when there are none, or when less
    /// than `keep` bytes would be left; the highest adjacent ones are kept, if there are as many.
    pub fn take_run(&mut self, pages: usize, align: usize, keep: usize) -> Option<usize> {
        let keep = keep.div_ceil(PAGE);
        if pages.checked_add(keep)? > self.unused {
            return None;
        }
        let kept = self.highest(keep);
        let align = align.max(PAGE);
        let enough = pages.checked_add(align / PAGE - 1)?;
        let mut from = self.low * BITS;
        loop {
            let mut run = self.run_from(from, enough)?;
            if from == self.low * BITS {
                self.low = run.start / BITS;
            }
            from = run.end;
            if kept.contains(&run.start) {
                from = kept.end;
                continue;
            }
            if run.start < kept.start {
                run.end = run.end.min(kept.start);
            }
            let start = self.page(self.address(run.start).checked_next_multiple_of(align)?);
            if start < run.end && run.end - start >= pages {
                self.clear(start..start + pages);
                return Some(self.address(start));
            }
        }
    }

    /// Takes a chunk: the highest that is free.
    pub fn take(&mut self) -> Option<usize> {
        while let Some(word) = self.free.get(self.high).copied() {
            let chunks = word & (word >> 1) & (word >> 2) & (word >> 3) & 0x1111_1111_1111_1111;
            if chunks != 0 {
                let page = self.high * BITS + chunks.ilog2() as usize;
                self.clear(page..page + CHUNK / PAGE);
                return Some(self.address(page));
            }
            self.high = self.high.checked_sub(1)?;
        }
        None
    }

    /// Takes `pages` pages back that start at `address`.
    ///
    /// # Safety
    /// They came from [`take_run`](Self::take_run) or [`take`](Self::take), and nothing uses them
    /// any more.
    pub unsafe fn give(&mut self, address: usize, pages: usize) {
        let start = self.page(address);
        self.set(start..start + pages);
        self.low = self.low.min(start / BITS);
        self.high = self.high.max((start + pages - 1) / BITS);
    }

    /// Notes that the run at `address` stands in for a slab or an arena.
    pub fn note_stand_in(&mut self, address: usize) {
        let page = self.page(address);
        self.stand_ins[page / BITS] |= 1 << (page % BITS);
    }

    /// Whether the page at `address` begins such a run; it is noted no longer.
    pub fn was_stand_in(&mut self, address: usize) -> bool {
        let page = self.page(address);
        let (word, bit) = (&mut self.stand_ins[page / BITS], 1 << (page % BITS));
        let was = *word & bit != 0;
        *word &= !bit;
        was
    }

    /// Bytes that neither the heap nor a stack has.
    #[must_use]
    pub fn unused(&self) -> usize {
        self.unused * PAGE
    }

    /// The free memory, from the lowest address up, as adjacent pages: from, to.
    pub fn runs(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let next = |from: usize| self.run_from(from, usize::MAX);
        core::iter::successors(next(self.low * BITS), move |run| next(run.end))
            .map(|run| (self.address(run.start), self.address(run.end)))
    }

    fn page(&self, address: usize) -> usize {
        (address - self.base) / PAGE
    }

    fn address(&self, page: usize) -> usize {
        self.base + page * PAGE
    }

    fn set(&mut self, pages: Range<usize>) {
        self.unused += pages.len();
        for (word, mask) in words(pages) {
            debug_assert_eq!(self.free[word] & mask, 0, "free already");
            self.free[word] |= mask;
        }
    }

    fn clear(&mut self, pages: Range<usize>) {
        self.unused -= pages.len();
        for (word, mask) in words(pages) {
            debug_assert_eq!(self.free[word] & mask, mask, "not free");
            self.free[word] &= !mask;
        }
    }

    /// The first free pages from page `from` on, `enough` of them at most.
    fn run_from(&self, from: usize, enough: usize) -> Option<Range<usize>> {
        let start = self.next(from, usize::MAX, false)?;
        let limit = start.saturating_add(enough).min(self.free.len() * BITS);
        Some(start..self.next(start, limit, true).unwrap_or(limit))
    }

    /// The first page from `from` on and below `limit` that is free, or that is in use.
    fn next(&self, from: usize, limit: usize, in_use: bool) -> Option<usize> {
        let flip = if in_use { u64::MAX } else { 0 };
        let mut mask = u64::MAX << (from % BITS);
        for (n, word) in self.free.iter().enumerate().skip(from / BITS) {
            if n * BITS >= limit {
                break;
            }
            let found = (word ^ flip) & mask;
            if found != 0 {
                let page = n * BITS + found.trailing_zeros() as usize;
                return (page < limit).then_some(page);
            }
            mask = u64::MAX;
        }
        None
    }

    /// The highest `count` adjacent free pages; none if there are not as many.
    fn highest(&self, count: usize) -> Range<usize> {
        let mut end = 0;
        let mut length = 0;
        if count == 0 {
            return 0..0;
        }
        for (n, word) in self.free.iter().enumerate().rev() {
            match *word {
                0 => length = 0,
                u64::MAX => {
                    if length == 0 {
                        end = (n + 1) * BITS;
                    }
                    length += BITS;
                }
                word => {
                    let mut left = BITS;
                    while left > 0 {
                        // What is above has been counted.
                        let rest = word << (BITS - left);
                        let used = (rest.leading_zeros() as usize).min(left);
                        if used > 0 {
                            left -= used;
                            length = 0;
                            continue;
                        }
                        let free = (rest.leading_ones() as usize).min(left);
                        if length == 0 {
                            end = n * BITS + left;
                        }
                        length += free;
                        left -= free;
                        if length >= count {
                            break;
                        }
                    }
                }
            }
            if length >= count {
                return end - count..end;
            }
        }
        0..0
    }
}

/// The words that `pages` have a part in, and which bits of each.
fn words(pages: Range<usize>) -> impl Iterator<Item = (usize, u64)> {
    (pages.start / BITS..pages.end.div_ceil(BITS)).map(move |word| {
        let from = pages.start.max(word * BITS) % BITS;
        let count = pages.end.min((word + 1) * BITS) - pages.start.max(word * BITS);
        (word, u64::MAX >> (BITS - count) << from)
    })
}

#[cfg(test)]
mod tests;
