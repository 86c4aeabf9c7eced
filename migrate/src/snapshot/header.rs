//! The first page of a file.

use super::{Error, IDENTITY_MAX, PAGES_MAX, STATE_MAX, SnapshotId, index};
use crate::PAGE;

/// First bytes of every snapshot.
pub const MAGIC: [u8; 8] = *b"vmlsnap\0";
/// Files with another major version cannot be read.
pub const MAJOR: u16 = 1;
/// Newer minor versions only add what older readers may skip.
pub const MINOR: u16 = 1;
/// Size of the header, in bytes: a page, so that the pages behind it are aligned.
pub const HEADER_SIZE: usize = PAGE;

/// Where the header's own checksum is.
const CHECKSUM_AT: usize = HEADER_SIZE - 4;

/// A part of the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Section {
    /// Where it begins, in bytes from the start of the file.
    pub offset: u64,
    /// Its length, in bytes.
    pub length: u64,
    /// CRC-32 (IEEE) of it.
    pub checksum: u32,
}

impl Section {
    pub(super) fn of(offset: u64, bytes: &[u8]) -> Self {
        Self { offset, length: bytes.len() as u64, checksum: crc32fast::hash(bytes) }
    }

    fn lies_in(&self, file_size: u64) -> bool {
        self.offset >= HEADER_SIZE as u64
            && self.offset.checked_add(self.length).is_some_and(|end| end <= file_size)
    }
}

/// The snapshot that a file holds only the differences to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Base {
    /// Its name.
    pub id: SnapshotId,
    /// The checksum of its index, which depends on all its pages: another file with that name is
    /// refused.
    pub checksum: u32,
}

/// Information for people; nothing depends on it. Since version 1.1.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Notes {
    /// When the VM was in this state, in ns of Unix time.
    pub taken_ns: u64,
    /// Pages that were zero.
    pub pages_zero: u64,
    /// Pages left out because of the guest's page hints.
    pub pages_dont_care: u64,
    /// Whether the guest was quiescent.
    pub quiescent: bool,
}

/// A header that has passed all checks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Header {
    /// Minor version of the format.
    pub minor: u16,
    /// The snapshot's name.
    pub id: SnapshotId,
    /// The base if the snapshot is a difference; `None` if it is complete by itself.
    pub base: Option<Base>,
    /// Size of the VM's memory, in bytes.
    pub memory_size: u64,
    /// Size of the file, in bytes.
    pub file_size: u64,
    /// Where the pages begin; a multiple of the page size.
    pub data_offset: u64,
    /// Number of pages in the file.
    pub data_pages: u64,
    /// The index.
    pub index: Section,
    /// The VM manifest.
    pub identity: Section,
    /// The VM state: everything but memory and manifest.
    pub state: Section,
    /// `None` in files of version 1.0.
    pub notes: Option<Notes>,
}

impl Header {
    /// How many pages the VM's memory has.
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.memory_size / PAGE as u64
    }

    /// This snapshot as the base of a difference.
    #[must_use]
    pub fn as_base(&self) -> Base {
        Base { id: self.id, checksum: self.index.checksum }
    }

    /// Encodes the header.
    #[must_use]
    pub fn encode(&self) -> Box<[u8; HEADER_SIZE]> {
        let mut out = Box::new([0; HEADER_SIZE]);
        let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &MAGIC);
        put(8, &MAJOR.to_le_bytes());
        put(10, &self.minor.to_le_bytes());
        put(16, &self.id);
        if let Some(base) = &self.base {
            put(12, &1_u32.to_le_bytes());
            put(32, &base.id);
            put(48, &base.checksum.to_le_bytes());
        }
        put(56, &self.memory_size.to_le_bytes());
        put(64, &self.file_size.to_le_bytes());
        put(72, &self.data_offset.to_le_bytes());
        put(80, &self.data_pages.to_le_bytes());
        for (at, section) in [(88, &self.index), (112, &self.identity), (136, &self.state)] {
            put(at, &section.offset.to_le_bytes());
            put(at + 8, &section.length.to_le_bytes());
            put(at + 16, &section.checksum.to_le_bytes());
        }
        if let Some(notes) = &self.notes {
            put(160, &notes.taken_ns.to_le_bytes());
            put(168, &notes.pages_zero.to_le_bytes());
            put(176, &notes.pages_dont_care.to_le_bytes());
            put(184, &u32::from(notes.quiescent).to_le_bytes());
        }
        let checksum = crc32fast::hash(&out[..CHECKSUM_AT]);
        out[CHECKSUM_AT..].copy_from_slice(&checksum.to_le_bytes());
        out
    }

    /// Checks the first page of a file.
    ///
    /// # Errors
    /// All but [`Error::Size`] and [`Error::Page`].
    pub fn decode(bytes: &[u8; HEADER_SIZE]) -> Result<Self, Error> {
        fn at<const N: usize>(bytes: &[u8; HEADER_SIZE], at: usize) -> [u8; N] {
            std::array::from_fn(|i| bytes[at + i])
        }
        let half = |n| u16::from_le_bytes(at(bytes, n));
        let word = |n| u32::from_le_bytes(at(bytes, n));
        let long = |n| u64::from_le_bytes(at(bytes, n));
        if bytes[..8] != MAGIC {
            return Err(Error::Magic);
        }
        if half(8) != MAJOR {
            return Err(Error::Major(half(8)));
        }
        if word(CHECKSUM_AT) != crc32fast::hash(&bytes[..CHECKSUM_AT]) {
            return Err(Error::Checksum("header"));
        }
        let section = |n| Section { offset: long(n), length: long(n + 8), checksum: word(n + 16) };
        let header = Self {
            minor: half(10),
            id: at(bytes, 16),
            base: match word(12) {
                0 => None,
                1 => Some(Base { id: at(bytes, 32), checksum: word(48) }),
                _ => return Err(Error::Broken("it is neither whole nor a difference")),
            },
            memory_size: long(56),
            file_size: long(64),
            data_offset: long(72),
            data_pages: long(80),
            index: section(88),
            identity: section(112),
            state: section(136),
            notes: (half(10) >= 1).then(|| Notes {
                taken_ns: long(160),
                pages_zero: long(168),
                pages_dont_care: long(176),
                quiescent: word(184) != 0,
            }),
        };
        header.check()?;
        Ok(header)
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        let page = PAGE as u64;
        if !self.memory_size.is_multiple_of(page) || self.pages() == 0 || self.pages() > PAGES_MAX {
            return Err(Error::Broken("no VM has memory of that size"));
        }
        let data = self.data_pages.checked_mul(page).and_then(|n| n.checked_add(self.data_offset));
        if !self.data_offset.is_multiple_of(page)
            || self.data_offset < page
            || data.is_none_or(|end| end > self.file_size)
        {
            return Err(Error::Broken("its pages do not lie in the file"));
        }
        let sections = [
            (&self.index, index::table_size(self.pages())),
            (&self.identity, IDENTITY_MAX),
            (&self.state, STATE_MAX),
        ];
        if sections.iter().any(|(s, most)| !s.lies_in(self.file_size) || s.length > *most) {
            return Err(Error::Broken("a part does not lie in the file, or is too long"));
        }
        if self.index.length != index::table_size(self.pages()) {
            return Err(Error::Broken("its index does not fit its memory"));
        }
        Ok(())
    }
}
