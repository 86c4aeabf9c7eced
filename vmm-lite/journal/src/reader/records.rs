//! Records, one after the other.

use super::{
    Reader,
    segment::{Found, Payload, Segment},
};
use crate::{
    Error,
    format::batch::{Decoder, Header},
    storage::Directory,
};
use std::sync::Arc;

/// A record: its position and its bytes.
pub type Record = (u64, Vec<u8>);

/// The records of a journal from some position on; see [`Reader::records_from`].
///
/// At most one batch (16 MiB) is in memory at a time. After an error there is nothing more.
pub struct Records {
    dir: Arc<dyn Directory>,
    id: crate::JournalId,
    /// First positions of the segments to come, the next one last.
    segments: Vec<u64>,
    /// The segment at hand.
    segment: Option<Segment>,
    decoder: Decoder,
    payload: Payload,
    /// Position of the next record in the payload.
    next: u64,
    /// The next record that is wanted.
    wanted: u64,
    /// The last one.
    last: u64,
}

impl Records {
    pub(super) fn new(reader: &Reader, from: u64) -> Result<Self, Error> {
        let segments = &reader.segments;
        let begin = segments.partition_point(|first| *first <= from).saturating_sub(1);
        let decoder = Decoder::new().map_err(Error::io("decompress", reader.path("")))?;
        Ok(Self {
            dir: Arc::clone(&reader.dir),
            id: reader.manifest.id,
            segments: segments[begin..].iter().rev().copied().collect(),
            segment: None,
            decoder,
            payload: Payload::default(),
            next: from,
            wanted: from,
            last: reader.ends_at(),
        })
    }

    fn advance(&mut self) -> Result<Option<Record>, Error> {
        while self.wanted <= self.last {
            if let Some(range) = self.payload.next() {
                let position = self.next;
                self.next += 1;
                if position == self.wanted {
                    self.wanted += 1;
                    return Ok(Some((position, self.payload.bytes[range].to_vec())));
                }
                continue;
            }
            self.load()?;
        }
        Ok(None)
    }

    /// Puts the next batch that has wanted records into the payload.
    fn load(&mut self) -> Result<(), Error> {
        loop {
            let follows = self.segments.last().copied();
            let Some(segment) = &mut self.segment else {
                // There are records up to `last`, so there is a segment.
                let Some(first) = self.segments.pop() else { return Err(Error::Closed) };
                self.segment = Some(Segment::open(&*self.dir, self.id, first)?);
                continue;
            };
            let Some(header) = next_batch(segment, follows)? else {
                self.segment = None;
                continue;
            };
            if header.next() <= self.wanted {
                segment.pass(&header);
                continue;
            }
            self.payload.at = 0;
            segment.decode(&header, &mut self.decoder, &mut self.payload.bytes)?;
            segment.pass(&header);
            self.next = header.first;
            return Ok(());
        }
    }
}

/// The next batch, where the next segment begins with `follows`, if there is one.
fn next_batch(segment: &mut Segment, follows: Option<u64>) -> Result<Option<Header>, Error> {
    match follows {
        Some(follows) => segment.next_of_finished(follows),
        // The records that are asked for were there when the reader was opened.
        None => match segment.look()? {
            Found::Batch(header) => Ok(Some(header)),
            Found::Nothing => Err(segment.damaged("a batch is gone that was there before")),
            Found::Bad(what) => Err(segment.damaged(what)),
        },
    }
}

impl Iterator for Records {
    type Item = Result<Record, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let record = self.advance();
        if record.is_err() {
            self.wanted = u64::MAX;
        }
        record.transpose()
    }
}

impl std::iter::FusedIterator for Records {}
