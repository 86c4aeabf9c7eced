//! The end of the last segment: where its records end, and whether something was cut off.
//!
//! The last segment may end in the middle of a write that was interrupted. Such a torn tail is cut.
//! It must not be confused with damage to records that were synced. Each batch tells which records
//! had been synced before it was written. So if the batch at hand cannot be read, and one behind it
//! says that its records were synced, then the batch at hand has been damaged.

use super::{
    Torn,
    segment::{Found, Segment},
    window::Window,
};
use crate::{
    Error,
    format::{
        JournalId,
        batch::{self, Header, Kind},
    },
};
use memchr::memmem;

/// How much is searched at once, in bytes.
const PIECE: usize = 64 << 10;
static ZEROS: [u8; PIECE] = [0; PIECE];

/// Where the log ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tail {
    /// Offset behind the last batch that counts.
    pub end: u64,
    /// Position of the record that comes next.
    pub next: u64,
    /// Whether the segment was finished.
    pub finished: bool,
    /// What was cut off.
    pub torn: Option<Torn>,
}

/// Reads the last segment to its end.
pub fn find(segment: &mut Segment, id: &JournalId) -> Result<Tail, Error> {
    loop {
        let found = segment.look()?;
        if let Found::Batch(header) = found
            && header.kind != Kind::End
        {
            segment.pass(&header);
            continue;
        }
        let finished = matches!(found, Found::Batch(_));
        let behind = segment.at() + if finished { batch::HEADER as u64 } else { 0 };
        let next = segment.next();
        let rest = Rest::read(segment.window(), behind, id)?;
        if finished && rest.last > behind {
            return Err(Error::damaged(
                segment.window().path(),
                behind,
                Some(next),
                "there is something behind its end",
            ));
        }
        if rest.synced < next {
            let torn = Torn { position: next, bytes: rest.last - behind };
            let torn = (torn.bytes > 0).then_some(torn);
            return Ok(Tail { end: segment.at(), next, finished, torn });
        }
        // The record was synced before a batch was written that has been read now. So it can be
        // read by now even if a writer was at work when it was looked at, unless it is damaged.
        segment.window().forget();
        match segment.look()? {
            Found::Batch(_) => {}
            Found::Bad(what) => return Err(segment.damaged(what)),
            Found::Nothing => return Err(segment.damaged("there is no batch where one was synced")),
        }
    }
}

/// What is behind the batches that can be read.
struct Rest {
    /// Offset behind the last byte that is not zero; at least where the rest begins.
    last: u64,
    /// The last record that was synced according to what is here; 0 if nothing says so.
    synced: u64,
}

impl Rest {
    fn read(window: &mut Window, begin: u64, id: &JournalId) -> Result<Self, Error> {
        let mut rest = Self { last: begin, synced: 0 };
        let mut at = begin;
        loop {
            // Pieces overlap, so that each header lies in one of them.
            let piece = window.get(at, PIECE)?;
            // Reserved space is compared as a whole: there may be much of it.
            let zero = piece == &ZEROS[..piece.len()];
            let last = if zero { None } else { piece.iter().rposition(|b| *b != 0) };
            if let Some(last) = last {
                rest.last = rest.last.max(at + last as u64 + 1);
                for from in memmem::find_iter(piece, &batch::MAGIC) {
                    let header = piece[from..].first_chunk().and_then(|b| Header::decode(b, id));
                    rest.synced = rest.synced.max(header.map_or(0, |header| header.synced));
                }
            }
            if piece.len() < PIECE {
                return Ok(rest);
            }
            at += (PIECE - batch::HEADER) as u64;
        }
    }
}
