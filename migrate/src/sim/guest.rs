//! A guest that writes pages all the time, some of which do not matter.

use crate::{PAGE, page_set::PageSet};

/// Pages of the guest.
pub const PAGES: usize = 96;
/// Pages that the guest always hints.
const DONT_CARE: std::ops::Range<usize> = 80..90;

/// A guest: the content of each page as a number, and a generator for its writes.
#[derive(Clone, Debug)]
pub struct Guest {
    /// Contents.
    pub memory: Vec<u64>,
    /// Changed since the log was last taken.
    pub dirty: PageSet,
    random: u64,
    /// Whether it writes.
    writes: bool,
}

impl Guest {
    /// A guest that has this memory and only reads it.
    pub fn idle(memory: Vec<u64>) -> Self {
        Self { memory, dirty: PageSet::none(PAGES), random: 1, writes: false }
    }

    /// A guest that writes differently for each seed.
    pub fn busy(seed: u64) -> Self {
        let mut guest = Self { random: seed | 1, writes: true, ..Self::idle(vec![0; PAGES]) };
        for page in 0..PAGES / 2 {
            guest.memory[page] = page as u64 + 1;
        }
        guest
    }

    /// Runs for a moment: writes some pages.
    pub fn run(&mut self) {
        let writes = if self.writes { 3 } else { 0 };
        for _ in 0..writes {
            let page = self.pick();
            self.memory[page] = self.random;
            self.dirty.insert(page);
        }
    }

    /// Picks a page at random.
    pub fn pick(&mut self) -> usize {
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) as usize % PAGES
    }

    /// Pages hinted now.
    pub fn page_hints(&self) -> PageSet {
        let mut set = PageSet::none(PAGES);
        DONT_CARE.for_each(|n| set.insert(n));
        set
    }

    /// Peeks at the log.
    pub fn dirty(&self) -> PageSet {
        self.dirty.clone()
    }

    /// Takes the log.
    pub fn take_dirty(&mut self) -> PageSet {
        std::mem::replace(&mut self.dirty, PageSet::none(PAGES))
    }

    /// A page's bytes.
    pub fn page(&self, page: usize) -> Box<[u8; PAGE]> {
        let mut bytes = Box::new([0; PAGE]);
        bytes[..8].copy_from_slice(&self.memory[page].to_le_bytes());
        bytes
    }

    /// The number that such bytes encode.
    pub fn number(page: &[u8; PAGE]) -> u64 {
        let (number, _) = page.split_first_chunk::<8>().expect("a page is longer");
        u64::from_le_bytes(*number)
    }
}
