//! The bytes of each file. `docs/journal-format.md` describes them.
//!
//! Everything here is a function of bytes: no file is opened. Each structure has a fixed header
//! with a checksum, so that it can be judged before anything in it is used.

pub mod batch;
mod fields;
pub mod manifest;
pub mod names;
pub mod resume;
pub mod segment;

/// A journal's own id: random, in the header of each of its files.
pub type JournalId = [u8; 16];

/// Files with another major version cannot be read.
pub const MAJOR: u16 = 1;
/// Newer minor versions only add what older readers may skip.
pub const MINOR: u16 = 0;

/// No journal has a record behind this one, so that counting further never overflows.
pub const POSITION_MAX: u64 = 1 << 60;

/// Why a header was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// It has another major version, and this one.
    Version(u16),
    /// Something else, in words.
    Because(&'static str),
}

impl Refused {
    /// The error for `file`.
    pub(crate) fn of(self, file: String) -> crate::Error {
        match self {
            Self::Version(found) => crate::Error::Version { file, found, known: MAJOR },
            Self::Because(what) => crate::Error::damaged(file, 0, None, what),
        }
    }
}
