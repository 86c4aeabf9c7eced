//! One segment, batch by batch.

use super::window::Window;
use crate::{
    Error,
    format::{
        JournalId,
        batch::{self, Decoder, Header, Kind},
        names, segment,
    },
    storage::Directory,
};
use std::ops::Range;

/// What is at a place in a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    /// A batch whose checksums are right, and that follows the one before it.
    Batch(Header),
    /// Zeros, or the end of the file.
    Nothing,
    /// Something else, in words.
    Bad(&'static str),
}

/// A segment that is read from its beginning.
pub struct Segment {
    window: Window,
    id: JournalId,
    /// Where the next batch begins.
    at: u64,
    /// Position of its first record.
    next: u64,
}

impl Segment {
    /// Opens the segment whose first record is `first`, and checks its header.
    pub fn open(dir: &dyn Directory, id: JournalId, first: u64) -> Result<Self, Error> {
        let mut window = Window::open(dir, &names::segment(first))?;
        let path = window.path().to_owned();
        let header = window.get(0, segment::HEADER)?.first_chunk();
        let header =
            header.ok_or_else(|| Error::damaged(&path, 0, Some(first), "its header is missing"))?;
        segment::check(header, &id, first).map_err(|refused| match refused.of(path) {
            Error::Damaged { file, offset, what, .. } => {
                Error::Damaged { file, offset, position: Some(first), what }
            }
            other => other,
        })?;
        Ok(Self { window, id, at: segment::HEADER as u64, next: first })
    }

    /// Where the batch begins that [`look`](Self::look) looks at.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// Position of that batch's first record.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// The file, for what is not a batch.
    pub fn window(&mut self) -> &mut Window {
        &mut self.window
    }

    /// Damage at the next batch.
    pub fn damaged(&self, what: impl Into<String>) -> Error {
        Error::damaged(self.window.path(), self.at, Some(self.next), what)
    }

    /// Looks at the next batch, and checks all of it.
    pub fn look(&mut self) -> Result<Found, Error> {
        let bytes = self.window.get(self.at, batch::HEADER)?;
        if bytes.iter().all(|b| *b == 0) {
            return Ok(Found::Nothing);
        }
        let header = bytes.first_chunk().and_then(|bytes| Header::decode(bytes, &self.id));
        let Some(header) = header else {
            return Ok(Found::Bad("the header of a batch is not as it was written"));
        };
        if header.first != self.next {
            // No write that is interrupted leaves that behind.
            let what =
                format!("record {} is where record {} was expected", header.first, self.next);
            return Err(self.damaged(what));
        }
        let stored = self.stored(&header)?;
        let whole = stored.len() == header.stored as usize;
        if !whole || crc32fast::hash(stored) != header.checksum {
            return Ok(Found::Bad("the payload of a batch is not as it was written"));
        }
        Ok(Found::Batch(header))
    }

    /// Goes behind the batch that was looked at.
    pub fn pass(&mut self, header: &Header) {
        self.at += (batch::HEADER + header.stored as usize) as u64;
        self.next = header.next();
    }

    /// Decodes the batch that was looked at.
    pub fn decode(
        &mut self,
        header: &Header,
        decoder: &mut Decoder,
        payload: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let stored = self.stored(header)?;
        decoder.open(header, stored, payload).map_err(|what| self.damaged(what))
    }

    fn stored(&mut self, header: &Header) -> Result<&[u8], Error> {
        self.window.get(self.at + batch::HEADER as u64, header.stored as usize)
    }

    /// The next batch of a segment behind which there is another, which begins with record
    /// `follows`. `None` at the end.
    pub fn next_of_finished(&mut self, follows: u64) -> Result<Option<Header>, Error> {
        match self.look()? {
            Found::Batch(header) if header.kind != Kind::End => Ok(Some(header)),
            Found::Batch(header) => {
                let end = self.at + batch::HEADER as u64;
                if header.first != follows {
                    Err(self.damaged(missing(header.first, follows)))
                } else if self.window.size()? != end {
                    self.at = end;
                    Err(self.damaged("there is something behind its end"))
                } else {
                    Ok(None)
                }
            }
            Found::Nothing => Err(self.damaged("there is no batch, and the segment does not end")),
            Found::Bad(what) => Err(self.damaged(what)),
        }
    }

    /// Checks without reading it all that a segment ends where the next one begins, with record
    /// `follows`.
    pub fn check_end(&mut self, follows: u64) -> Result<(), Error> {
        let Some(at) = self.window.size()?.checked_sub(batch::HEADER as u64) else {
            return Err(self.damaged("it is too short"));
        };
        let end = self.window.get(at, batch::HEADER)?.first_chunk();
        let end = end.and_then(|bytes| Header::decode(bytes, &self.id));
        let what = match end {
            Some(end) if end.kind != Kind::End => "its last batch is no end".to_owned(),
            Some(end) if end.first != follows => missing(end.first, follows),
            Some(_) => return Ok(()),
            None => "its end is not as it was written".to_owned(),
        };
        Err(Error::damaged(self.window.path(), at, None, what))
    }
}

fn missing(next: u64, follows: u64) -> String {
    format!("it ends before record {next}, and the next segment begins with record {follows}")
}

/// A payload, and which of its records is next.
#[derive(Default)]
pub struct Payload {
    pub bytes: Vec<u8>,
    pub at: usize,
}

impl Payload {
    /// The next record's bytes. The payload has been checked by [`Decoder::open`].
    pub fn next(&mut self) -> Option<Range<usize>> {
        let range = batch::record(&self.bytes, self.at)?;
        self.at = range.end;
        Some(range)
    }
}
