//! Where each page is.
//!
//! Memory is divided into groups of [`GROUP`] pages. The index proper is a table with an entry for
//! each group: where its [`Block`] lies, and the block's checksum. So a reader that wants one page
//! reads the table (8 KiB for each GiB of memory) and one block, and opening takes next to no time
//! for a file of any size.

use super::Error;

/// Pages of a group.
pub const GROUP: u64 = 512;

/// Size of a table entry, in bytes.
const ENTRY: usize = 16;
/// Size of a block's two bitmaps, in bytes.
const BITMAPS: usize = 2 * GROUP as usize / 8;
/// Size of a page's entry in a block, in bytes.
const PLACE: usize = 8;
/// Longest block, in bytes.
const BLOCK_MAX: usize = BITMAPS + GROUP as usize * PLACE;

/// Length of the table for a memory of `pages` pages, in bytes.
pub(super) fn table_size(pages: u64) -> u64 {
    pages.div_ceil(GROUP) * ENTRY as u64
}

/// What a file has for a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Content {
    /// Nothing: the page is zero, or in a difference the same as in the base.
    Absent,
    /// The page is zero, and is not zero in the base.
    Zero,
    /// The page is in the file.
    Data {
        /// Number of the page among the file's pages.
        slot: u32,
        /// CRC-32 (IEEE) of it.
        checksum: u32,
    },
}

/// Where a group's block lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    pub offset: u64,
    pub length: u32,
    pub checksum: u32,
}

/// The table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Index {
    entries: Vec<Entry>,
}

impl Index {
    /// Reads a table whose checksum has been verified.
    pub(super) fn decode(bytes: &[u8], file_size: u64) -> Result<Self, Error> {
        let entries = bytes.as_chunks::<ENTRY>().0.iter().map(|e| {
            let (offset, rest) = e.split_at(8);
            let (length, checksum) = rest.split_at(4);
            let entry =
                Entry { offset: long(offset), length: word(length), checksum: word(checksum) };
            let inside =
                entry.offset.checked_add(entry.length.into()).is_some_and(|e| e <= file_size);
            let length = entry.length as usize;
            if !inside || length > BLOCK_MAX || length != 0 && length < BITMAPS {
                return Err(Error::Broken("a block of the index does not lie in the file"));
            }
            Ok(entry)
        });
        Ok(Self { entries: entries.collect::<Result<_, _>>()? })
    }

    /// Number of pages its blocks have data for, by their lengths, which are verified when the
    /// blocks are read. Pages that name the same data count each: reading all of them must take no
    /// longer than reading the file.
    pub(super) fn named(&self) -> u64 {
        let places = |entry: Entry| (entry.length as usize).saturating_sub(BITMAPS) / PLACE;
        (0..self.groups()).filter_map(|group| self.entry(group)).map(|e| places(e) as u64).sum()
    }

    /// Number of groups.
    #[must_use]
    pub fn groups(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn entry(&self, group: usize) -> Option<Entry> {
        self.entries.get(group).copied()
    }
}

/// What the file has for a group's pages.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Block {
    first: u64,
    data: [u64; 8],
    zero: [u64; 8],
    places: Vec<(u32, u32)>,
}

impl Block {
    /// The block of a group for which the file has nothing.
    pub(super) fn empty(group: usize) -> Self {
        let first = group as u64 * GROUP;
        Self { first, data: [0; 8], zero: [0; 8], places: Vec::new() }
    }

    /// Reads a block whose checksum has been verified.
    pub(super) fn decode(
        bytes: &[u8],
        group: usize,
        pages: u64,
        data_pages: u64,
        difference: bool,
    ) -> Result<Self, Error> {
        let first = group as u64 * GROUP;
        let (maps, places) = bytes
            .split_at_checked(BITMAPS)
            .ok_or(Error::Broken("a block of the index is short"))?;
        let bits = |n: usize| std::array::from_fn(|i| long(&maps[n * 64 + i * 8..][..8]));
        let (data, zero): ([u64; 8], [u64; 8]) = (bits(0), bits(1));
        let places: Vec<_> =
            places.as_chunks::<PLACE>().0.iter().map(|p| (word(&p[..4]), word(&p[4..]))).collect();
        let block = Self { first, data, zero, places };
        let both = data.iter().zip(&zero).any(|(d, z)| d & z != 0);
        let count: u32 = data.iter().map(|w| w.count_ones()).sum();
        if both
            || bytes.len() != BITMAPS + count as usize * PLACE
            || !difference && zero != [0; 8]
            || block.iter().any(|(page, _)| page >= pages)
            || block.places.iter().any(|(slot, _)| u64::from(*slot) >= data_pages)
        {
            return Err(Error::Broken("a block of the index contradicts itself"));
        }
        Ok(block)
    }

    /// What the file has for `page`.
    #[must_use]
    pub fn content(&self, page: u64) -> Content {
        let Some(n) = page.checked_sub(self.first).filter(|n| *n < GROUP) else {
            return Content::Absent;
        };
        let (word, bit) = (n as usize / 64, n % 64);
        if self.zero[word] >> bit & 1 == 1 {
            return Content::Zero;
        }
        if self.data[word] >> bit & 1 == 0 {
            return Content::Absent;
        }
        let before: u32 = self.data[..word].iter().map(|w| w.count_ones()).sum();
        let rank = before + (self.data[word] & ((1 << bit) - 1)).count_ones();
        match self.places.get(rank as usize) {
            Some(&(slot, checksum)) => Content::Data { slot, checksum },
            None => Content::Absent,
        }
    }

    /// The pages for which the file has something, in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = (u64, Content)> + '_ {
        let pages = (0..GROUP).map(|n| self.first + n);
        pages.map(|page| (page, self.content(page))).filter(|(_, c)| *c != Content::Absent)
    }
}

/// An index under construction.
#[derive(Clone, Debug)]
pub struct IndexBuilder {
    pages: u64,
    groups: Vec<Option<Box<Group>>>,
}

#[derive(Clone, Debug)]
struct Group {
    content: [Content; GROUP as usize],
}

impl IndexBuilder {
    /// An index for a memory of `pages` pages, with nothing in the file yet.
    #[must_use]
    pub fn new(pages: u64) -> Self {
        Self { pages, groups: vec![None; pages.div_ceil(GROUP) as usize] }
    }

    /// How many pages the memory has.
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.pages
    }

    /// Sets what the file has for `page`. Ignores a page outside the memory.
    pub fn set(&mut self, page: u64, content: Content) {
        let Some(group) = self.groups.get_mut((page / GROUP) as usize) else { return };
        if page < self.pages {
            let empty = || Box::new(Group { content: [Content::Absent; GROUP as usize] });
            group.get_or_insert_with(empty).content[(page % GROUP) as usize] = content;
        }
    }

    /// What the file has for `page` so far.
    #[must_use]
    pub fn get(&self, page: u64) -> Content {
        let group = self.groups.get((page / GROUP) as usize).and_then(Option::as_ref);
        group.map_or(Content::Absent, |g| g.content[(page % GROUP) as usize])
    }

    /// The blocks, which are written at `offset` of the file, and the table.
    pub(super) fn encode(&self, offset: u64) -> (Vec<u8>, Vec<u8>) {
        let (mut blocks, mut table) = (Vec::new(), Vec::new());
        for group in &self.groups {
            let block = group.as_ref().map(|g| g.encode()).unwrap_or_default();
            let at = if block.is_empty() { 0 } else { offset + blocks.len() as u64 };
            table.extend(at.to_le_bytes());
            table.extend((block.len() as u32).to_le_bytes());
            table.extend(crc32fast::hash(&block).to_le_bytes());
            blocks.extend(block);
        }
        (blocks, table)
    }
}

impl Group {
    fn encode(&self) -> Vec<u8> {
        let mut maps = [0; BITMAPS];
        let mut places = Vec::new();
        for (n, content) in self.content.iter().enumerate() {
            match content {
                Content::Absent => {}
                Content::Zero => maps[64 + n / 8] |= 1 << (n % 8),
                Content::Data { slot, checksum } => {
                    maps[n / 8] |= 1 << (n % 8);
                    places.extend(slot.to_le_bytes());
                    places.extend(checksum.to_le_bytes());
                }
            }
        }
        if maps == [0; BITMAPS] { Vec::new() } else { [&maps[..], &places].concat() }
    }
}

fn word(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |n, b| n << 8 | u32::from(*b))
}

fn long(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b))
}
