//! Snapshot files: a stopped VM, as bytes.
//!
//! A file is a [`Header`], the pages that matter one behind the other, an [index](Index) that says
//! where each page is, and two parts that only the VMM understands: the VM manifest and the VM
//! state. Every part has a checksum and so has each page, so that a page can be used as soon as it
//! alone is verified. `docs/snapshot-format.md` has the bytes.
//!
//! - [`Header`]: verified before anything else is read
//! - [`IndexBuilder`], [`finish`]: the end of a file, once its pages are written
//! - [`Reader`]: reads a file, from anything that is [`Bytes`], and returns only verified content
//!
//! A file is hostile until verified: the limits here bound the memory that a reader uses, whatever
//! a file announces.

mod header;
mod index;
mod reader;

pub use header::{Base, HEADER_SIZE, Header, MAGIC, MAJOR, MINOR, Notes, Section};
pub use index::{Block, Content, GROUP, Index, IndexBuilder};
pub use reader::{Bytes, Reader};

use std::io;

/// Most pages of a VM: 64 GiB.
pub const PAGES_MAX: u64 = 1 << 24;
/// Longest identity, in bytes.
pub const IDENTITY_MAX: u64 = 64 << 10;
/// Longest state, in bytes.
pub const STATE_MAX: u64 = 1 << 20;

/// Identifies one snapshot: 128 random bits, drawn when it is taken.
pub type SnapshotId = [u8; 16];

/// Why a file cannot be used.
#[derive(thiserror::Error, Debug)]
pub enum Error {
    /// The file is something else.
    #[error("this is no snapshot of a VM")]
    Magic,
    /// Made by a newer vmm-lite.
    #[error(
        "the snapshot has format version {0}, which this vmm-lite does not know ({MAJOR} is the \
         newest it does)"
    )]
    Major(u16),
    /// Truncated, or with trailing data.
    #[error("the snapshot is incomplete: it has {has} bytes and should have {should}")]
    Size {
        /// Bytes that the file has.
        has: u64,
        /// Bytes that it should have.
        should: u64,
    },
    /// Bytes have changed since they were written.
    #[error("the snapshot is damaged: the checksum of its {0} is wrong")]
    Checksum(&'static str),
    /// As above, for a page.
    #[error("the snapshot is damaged: the checksum of memory page {0} is wrong")]
    Page(u64),
    /// A value in it is impossible.
    #[error("the snapshot makes no sense: {0}")]
    Broken(&'static str),
    /// It cannot be read.
    #[error("the snapshot cannot be read")]
    Read(#[from] io::Error),
}

/// Builds the end of a file, index, identity and state, which are written behind `data_pages`
/// pages, and the header that is written before them.
///
/// # Errors
/// [`Error::Broken`] for parts that every reader would refuse.
pub fn finish(
    id: SnapshotId,
    base: Option<Base>,
    index: &IndexBuilder,
    data_pages: u64,
    identity: &[u8],
    state: &[u8],
    notes: Notes,
) -> Result<(Header, Vec<u8>), Error> {
    if identity.len() as u64 > IDENTITY_MAX || state.len() as u64 > STATE_MAX {
        return Err(Error::Broken("identity or state are too long"));
    }
    let data_offset = HEADER_SIZE as u64;
    let start = data_offset + data_pages * crate::PAGE as u64;
    let (mut tail, table) = index.encode(start);
    let index_section = Section::of(start + tail.len() as u64, &table);
    tail.extend(table);
    let identity_section = Section::of(start + tail.len() as u64, identity);
    tail.extend(identity);
    let state_section = Section::of(start + tail.len() as u64, state);
    tail.extend(state);
    let header = Header {
        minor: MINOR,
        id,
        base,
        memory_size: index.pages() * crate::PAGE as u64,
        file_size: start + tail.len() as u64,
        data_offset,
        data_pages,
        index: index_section,
        identity: identity_section,
        state: state_section,
        notes: Some(notes),
    };
    header.check()?;
    Ok((header, tail))
}

#[cfg(test)]
mod tests;
