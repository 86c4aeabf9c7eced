//! Reads a snapshot file.

use super::{Block, Content, Error, HEADER_SIZE, Header, Index, Section};
use crate::PAGE;
use std::io;

/// Something that a snapshot can be read from.
pub trait Bytes {
    /// Size in bytes.
    ///
    /// # Errors
    /// If the size cannot be determined.
    fn size(&self) -> io::Result<u64>;

    /// Fills `to` with what lies at `offset`.
    ///
    /// # Errors
    /// Also if there are fewer bytes.
    fn read_at(&self, offset: u64, to: &mut [u8]) -> io::Result<()>;
}

impl Bytes for [u8] {
    fn size(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }

    fn read_at(&self, offset: u64, to: &mut [u8]) -> io::Result<()> {
        let from = usize::try_from(offset).ok().and_then(|at| self.get(at..)?.get(..to.len()));
        to.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

impl<B: Bytes + ?Sized> Bytes for &B {
    fn size(&self) -> io::Result<u64> {
        (**self).size()
    }

    fn read_at(&self, offset: u64, to: &mut [u8]) -> io::Result<()> {
        (**self).read_at(offset, to)
    }
}

/// A file whose header, index table, identity and state have been verified. Blocks and pages are
/// verified when they are read.
#[derive(Clone, Debug)]
pub struct Reader<B> {
    bytes: B,
    header: Header,
    index: Index,
    identity: Vec<u8>,
    state: Vec<u8>,
}

impl<B: Bytes> Reader<B> {
    /// Opens a file.
    ///
    /// # Errors
    /// All but [`Error::Page`].
    pub fn open(bytes: B) -> Result<Self, Error> {
        let has = bytes.size()?;
        let mut first = [0; HEADER_SIZE];
        let short = has < HEADER_SIZE as u64;
        let there = if short { has as usize } else { HEADER_SIZE };
        bytes.read_at(0, &mut first[..there])?;
        if short && first[..8] == super::MAGIC {
            return Err(Error::Size { has, should: HEADER_SIZE as u64 });
        }
        let header = Header::decode(&first)?;
        if has != header.file_size {
            return Err(Error::Size { has, should: header.file_size });
        }
        let index = Index::decode(&part(&bytes, &header.index, "index")?, has)?;
        if index.named() > header.data_pages {
            return Err(Error::Broken("its index names more pages than it has"));
        }
        let identity = part(&bytes, &header.identity, "identity")?;
        let state = part(&bytes, &header.state, "state")?;
        Ok(Self { bytes, header, index, identity, state })
    }

    /// The header.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The VM manifest.
    #[must_use]
    pub fn identity(&self) -> &[u8] {
        &self.identity
    }

    /// The VM state: everything but memory and manifest.
    #[must_use]
    pub fn state(&self) -> &[u8] {
        &self.state
    }

    /// Number of groups of pages.
    #[must_use]
    pub fn groups(&self) -> usize {
        self.index.groups()
    }

    /// What the file has for a group's pages.
    ///
    /// # Errors
    /// [`Error::Checksum`], [`Error::Broken`], [`Error::Read`].
    pub fn block(&self, group: usize) -> Result<Block, Error> {
        let entry = self.index.entry(group).ok_or(Error::Broken("no such group of pages"))?;
        if entry.length == 0 {
            return Ok(Block::empty(group));
        }
        let section =
            Section { offset: entry.offset, length: entry.length.into(), checksum: entry.checksum };
        let bytes = part(&self.bytes, &section, "index")?;
        let header = &self.header;
        Block::decode(&bytes, group, header.pages(), header.data_pages, header.base.is_some())
    }

    /// Reads the page in `slot` and those behind it, as many as `to` has room for, without
    /// verifying their checksums.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub fn slots(&self, slot: u32, to: &mut [[u8; PAGE]]) -> Result<(), Error> {
        let offset = self.header.data_offset + u64::from(slot) * PAGE as u64;
        Ok(self.bytes.read_at(offset, to.as_flattened_mut())?)
    }

    /// Reads `page`, for which the file has `content`.
    ///
    /// # Errors
    /// [`Error::Page`], [`Error::Read`]. The content of `to` is then invalid.
    pub fn page(&self, page: u64, content: Content, to: &mut [u8; PAGE]) -> Result<(), Error> {
        let Content::Data { slot, checksum } = content else {
            to.fill(0);
            return Ok(());
        };
        self.slots(slot, std::slice::from_mut(to))?;
        if crc32fast::hash(to) == checksum { Ok(()) } else { Err(Error::Page(page)) }
    }

    /// Verifies everything not verified yet, and calls `page` with each page for which the file has
    /// something, in ascending order.
    ///
    /// # Errors
    /// [`Error`], and any error of `page`.
    pub fn each<E: From<Error>>(
        &self,
        mut page: impl FnMut(u64, Content, &[u8; PAGE]) -> Result<(), E>,
    ) -> Result<(), E> {
        /// Pages read with one call.
        const RUN: usize = 64;
        let mut room = vec![[0; PAGE]; RUN];
        for group in 0..self.groups() {
            let block = self.block(group)?;
            let mut pages = block.iter().peekable();
            while let Some((number, content)) = pages.next() {
                let Content::Data { slot, .. } = content else {
                    page(number, content, &[0; PAGE])?;
                    continue;
                };
                let mut run = vec![(number, content)];
                while run.len() < RUN
                    && let Some((number, content)) = pages.next_if(|(_, next)| {
                        matches!(next, Content::Data { slot: s,
                            .. } if s.wrapping_sub(slot) as usize == run.len())
                    })
                {
                    run.push((number, content));
                }
                self.slots(slot, &mut room[..run.len()])?;
                for ((number, content), bytes) in run.into_iter().zip(&room) {
                    if !matches!(content, Content::Data { checksum,
                        .. } if checksum == crc32fast::hash(bytes))
                    {
                        return Err(Error::Page(number).into());
                    }
                    page(number, content, bytes)?;
                }
            }
        }
        Ok(())
    }

    /// Verifies everything not verified yet.
    ///
    /// # Errors
    /// [`Error`].
    pub fn verify(&self) -> Result<(), Error> {
        self.each(|_, _, _| Ok(()))
    }
}

fn part(bytes: &impl Bytes, section: &Section, name: &'static str) -> Result<Vec<u8>, Error> {
    // The length was checked against the part's limit.
    let mut part = vec![0; section.length as usize];
    bytes.read_at(section.offset, &mut part)?;
    if crc32fast::hash(&part) == section.checksum { Ok(part) } else { Err(Error::Checksum(name)) }
}
