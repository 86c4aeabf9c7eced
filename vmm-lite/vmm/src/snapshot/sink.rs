//! Where the copy of a VM's memory is written.

use super::{Error, saved_vm::SavedVm};
use crate::{
    capture::{Page, Sink},
    memory::{PAGE, PageSet, is_zero},
};
use migrate::snapshot::{
    Base, Block, Bytes, Content, GROUP, HEADER_SIZE, Header, IndexBuilder, Notes, Reader,
    SnapshotId, finish,
};
use std::{fs::File, io, os::unix::fs::FileExt};

/// A file as the source of a snapshot.
#[derive(Debug)]
pub struct Input(pub File);

impl Bytes for Input {
    fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, offset: u64, to: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(to, offset)
    }
}

/// Pages gathered before they are written.
const GATHER: usize = 64;

/// A snapshot file.
#[derive(Debug)]
pub struct FileSink {
    file: File,
    base: Option<Reader<Input>>,
    /// The block of the base that was last read, and its group.
    block: Option<(usize, Block)>,
    index: IndexBuilder,
    /// Pages that were written.
    came: PageSet,
    /// Slots allocated.
    slots: u32,
    /// The last of them, not written yet.
    gathered: Vec<u8>,
    counts: Counts,
}

/// Where pages are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// In the file.
    pub saved: u64,
    /// Zero.
    pub zero: u64,
    /// As in the base.
    pub same: u64,
}

impl FileSink {
    /// Writes to `file`, which is empty: all of a memory of this many pages, or its difference to
    /// `base`.
    ///
    /// # Errors
    /// [`Error::BaseIsDifference`], [`Error::BaseSize`].
    pub fn new(file: File, pages: usize, base: Option<Reader<Input>>) -> Result<Self, Error> {
        if let Some(base) = &base {
            if base.header().base.is_some() {
                return Err(Error::BaseIsDifference);
            }
            if base.header().pages() != pages as u64 {
                return Err(Error::BaseSize);
            }
        }
        Ok(Self {
            file,
            base,
            block: None,
            index: IndexBuilder::new(pages as u64),
            came: PageSet::none(pages),
            slots: 0,
            gathered: Vec::with_capacity(GATHER * PAGE),
            counts: Counts::default(),
        })
    }

    /// The pages' places so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Writes a page.
    ///
    /// # Errors
    /// When it cannot be written, or the base is damaged.
    pub fn page(&mut self, page: usize, content: &[u8; PAGE]) -> Result<(), Error> {
        let number = page as u64;
        self.came.insert(page);
        let checksum = crc32fast::hash(content);
        if let Content::Data { slot, .. } = self.index.get(number) {
            self.flush()?;
            self.file.write_all_at(content, place(slot)).map_err(Error::Write)?;
            self.index.set(number, Content::Data { slot, checksum });
            return Ok(());
        }
        let before = self.base_has(number)?;
        if is_zero(content) {
            let mark = if before == Content::Absent { Content::Absent } else { Content::Zero };
            self.index.set(number, mark);
            self.counts.zero += 1;
            return Ok(());
        }
        if let (Content::Data { checksum: theirs, .. }, Some(base)) = (before, &self.base)
            && theirs == checksum
        {
            let mut bytes = [0; PAGE];
            base.page(number, before, &mut bytes)?;
            if bytes == *content {
                self.index.set(number, Content::Absent);
                self.counts.same += 1;
                return Ok(());
            }
        }
        self.index.set(number, Content::Data { slot: self.slots, checksum });
        self.slots += 1;
        self.counts.saved += 1;
        self.gathered.extend_from_slice(content);
        if self.gathered.len() == GATHER * PAGE { self.flush() } else { Ok(()) }
    }

    fn base_has(&mut self, page: u64) -> Result<Content, Error> {
        let Some(base) = &self.base else { return Ok(Content::Absent) };
        let group = (page / GROUP) as usize;
        if self.block.as_ref().is_none_or(|(of, _)| *of != group) {
            self.block = Some((group, base.block(group)?));
        }
        Ok(self.block.as_ref().map_or(Content::Absent, |(_, block)| block.content(page)))
    }

    fn flush(&mut self) -> Result<(), Error> {
        fail_point!("snapshot.copying",
            else return Err(Error::Write(crate::fail_point::injected())));
        let first = self.slots - (self.gathered.len() / PAGE) as u32;
        self.file.write_all_at(&self.gathered, place(first)).map_err(Error::Write)?;
        self.gathered.clear();
        Ok(())
    }

    /// Writes the rest of the file. `page_hints` are pages that were not written because they do
    /// not matter.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(
        mut self,
        id: SnapshotId,
        guest: &SavedVm,
        page_hints: &PageSet,
        mut notes: Notes,
    ) -> Result<(Header, Counts), Error> {
        self.flush()?;
        if let Some(base) = &self.base {
            // Pages that became zero: they are in the base, matter, and were not written.
            for group in 0..base.groups() {
                for (page, _) in base.block(group)?.iter() {
                    let known = self.came.contains(page as usize);
                    if !known && !page_hints.contains(page as usize) {
                        self.index.set(page, Content::Zero);
                    }
                }
            }
        }
        let (identity, state) = guest.encode();
        let base: Option<Base> = self.base.as_ref().map(|base| base.header().as_base());
        notes.pages_zero = self.counts.zero;
        let slots = u64::from(self.slots);
        let (header, tail) = finish(id, base, &self.index, slots, &identity, &state, notes)?;
        let end = header.data_offset + slots * PAGE as u64;
        self.file.write_all_at(&tail, end).map_err(Error::Write)?;
        self.file.write_all_at(header.encode().as_slice(), 0).map_err(Error::Write)?;
        Ok((header, self.counts))
    }
}

impl Sink for FileSink {
    fn pages(&mut self, pages: &[Page]) -> io::Result<()> {
        let written = pages.iter().try_for_each(|(page, content)| self.page(*page, content));
        written.map_err(|e| match e {
            Error::Write(e) => e,
            e => io::Error::other(e),
        })
    }
}

fn place(slot: u32) -> u64 {
    HEADER_SIZE as u64 + u64::from(slot) * PAGE as u64
}

/// A memory image that clones map: page after page, each at its offset.
#[derive(Debug)]
pub struct TemplateSink {
    file: File,
    /// Pages written.
    pub saved: u64,
}

impl TemplateSink {
    /// Writes to `file`, which is empty and grows to the size of the memory.
    ///
    /// # Errors
    /// When there is no space.
    pub fn new(file: File, pages: usize) -> Result<Self, Error> {
        file.set_len((pages * PAGE) as u64).map_err(Error::Write)?;
        Ok(Self { file, saved: 0 })
    }
}

impl Sink for TemplateSink {
    fn pages(&mut self, pages: &[Page]) -> io::Result<()> {
        for (page, content) in pages {
            // Only a page that was written before can have another content.
            if !is_zero(content) || self.saved > 0 && self.is_there(*page) {
                self.file.write_all_at(content, (page * PAGE) as u64)?;
                self.saved += 1;
            }
        }
        Ok(())
    }
}

impl TemplateSink {
    fn is_there(&self, page: usize) -> bool {
        use std::os::fd::AsRawFd;
        let at = (page * PAGE) as libc::off_t;
        // SAFETY: moves a file position that nothing else uses; the result is checked.
        unsafe { libc::lseek(self.file.as_raw_fd(), at, libc::SEEK_DATA) == at }
    }
}

/// A fresh name for a snapshot.
///
/// # Errors
/// When the host provides no random numbers.
pub fn draw_id() -> Result<SnapshotId, Error> {
    crate::host::random::bytes().map_err(super::host("draw random numbers"))
}
