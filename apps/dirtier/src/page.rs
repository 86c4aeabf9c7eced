//! A page that can be checked for corruption: a sequence number, a checksum over all of it, and
//! content derived from both.

use foldhash::fast::FixedState;
use std::fmt;
use std::hash::{BuildHasher, Hasher};

/// Size of a page.
pub const PAGE_SIZE: usize = 4096;
const WORDS: usize = PAGE_SIZE / 8 - 2;

/// One page of memory.
#[repr(C, align(4096))]
#[derive(Clone)]
pub struct Page {
    sequence: u64,
    checksum: u64,
    content: [u64; WORDS],
}

/// How a page differs from what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mismatch {
    wanted: u64,
    found: u64,
    stored: u64,
    sum: u64,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { wanted, found, stored, sum } = self;
        write!(
            f,
            "was written with sequence {wanted}, has sequence {found}; its checksum says \
             {stored:016x}, its content {sum:016x}"
        )
    }
}

const _: () = assert!(size_of::<Page>() == PAGE_SIZE);

impl Page {
    /// A page in the state that [`check`](Self::check) expects of page `index` at `sequence`.
    pub fn new(index: u64, sequence: u64) -> Self {
        let mut page = Self { sequence: 0, checksum: 0, content: [0; WORDS] };
        page.rewrite(index, sequence);
        page
    }

    /// Gives every byte of the page a new value.
    pub fn rewrite(&mut self, index: u64, sequence: u64) {
        let mut word = (index << 40 ^ sequence).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        for slot in &mut self.content {
            word = word.wrapping_add(0xA24B_AED4_963E_E407);
            *slot = word ^ word >> 29;
        }
        self.sequence = sequence;
        self.checksum = self.sum(index);
    }

    /// Whether the page is page `index` as it was written at `sequence`, in every bit.
    pub fn check(&self, index: u64, sequence: u64) -> Result<(), Mismatch> {
        let sum = self.sum(index);
        if self.sequence == sequence && self.checksum == sum {
            return Ok(());
        }
        Err(Mismatch { wanted: sequence, found: self.sequence, stored: self.checksum, sum })
    }

    /// Flips a bit.
    pub fn spoil(&mut self) {
        self.content[WORDS / 2] ^= 1 << 17;
    }

    fn sum(&self, index: u64) -> u64 {
        let mut hasher = FixedState::with_seed(index).build_hasher();
        hasher.write_u64(self.sequence);
        for word in &self.content {
            hasher.write_u64(*word);
        }
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_page_passes() {
        let page = Page::new(7, 100);
        assert_eq!(page.check(7, 100), Ok(()));
        assert!(page.check(8, 100).is_err(), "another page's content");
        assert!(page.check(7, 101).is_err(), "an older state");
    }

    #[test]
    fn any_flipped_bit_is_seen() {
        let good = Page::new(3, 9);
        for word in [0, 1, WORDS / 2, WORDS - 1] {
            for bit in 0..64 {
                let mut page = good.clone();
                page.content[word] ^= 1 << bit;
                assert!(page.check(3, 9).is_err(), "word {word} bit {bit}");
            }
        }
        let mut page = good.clone();
        page.checksum ^= 1;
        assert!(page.check(3, 9).is_err());
    }

    #[test]
    fn a_rewrite_changes_every_word() {
        let (a, b) = (Page::new(3, 9), Page::new(3, 10));
        assert!(a.content.iter().zip(&b.content).all(|(x, y)| x != y));
    }
}
