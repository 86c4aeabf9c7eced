//! Batches: what a segment consists of. A batch is what was written and synced at once.
//!
//! A batch is a header and a payload. The payload is the records, each with its length before it,
//! compressed where that pays. The last batch of a finished segment is an *end*: it has no records
//! and says that nothing follows.

use super::{
    JournalId,
    fields::{long, put, word},
};
use std::io;

/// First bytes of a batch.
pub const MAGIC: [u8; 4] = *b"vmlb";
/// Size of a batch's header, in bytes.
pub const HEADER: usize = 48;
/// Longest payload in bytes, compressed or not.
pub const PAYLOAD_MAX: usize = 16 << 20;
/// Size of the length before each record, in bytes.
pub const LENGTH: usize = 4;
/// Longest record, in bytes.
pub const RECORD_MAX: usize = PAYLOAD_MAX - LENGTH;

/// Batches below this size, in bytes, are not compressed: zstd's own header would eat the gain.
const COMPRESS_FROM: usize = 200;
/// Of zstd: fast, and input logs shrink by a factor of five all the same.
const LEVEL: i32 = 1;

/// How a payload is stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// As it is.
    Plain = 0,
    /// As one zstd frame.
    Zstd = 1,
    /// There is no payload: the segment ends here.
    End = 2,
}

/// A header that has passed its checks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// How the payload is stored.
    pub kind: Kind,
    /// Position of the first record; of an end, of the first record of the next segment.
    pub first: u64,
    /// Every record up to this one had been synced before this batch was written. A reader that
    /// cannot read such a record has found damage, not the torn end of an interrupted write.
    pub synced: u64,
    /// Number of records.
    pub count: u32,
    /// Length of the payload in bytes when it is not compressed.
    pub plain: u32,
    /// Length of the payload in bytes in the file.
    pub stored: u32,
    /// CRC-32 (IEEE) of the payload in the file.
    pub checksum: u32,
}

impl Header {
    /// Encodes the header for the journal `id`.
    #[must_use]
    pub fn encode(&self, id: &JournalId) -> [u8; HEADER] {
        let mut out = [0; HEADER];
        put(&mut out, 0, &MAGIC);
        put(&mut out, 4, &(self.kind as u32).to_le_bytes());
        put(&mut out, 8, &self.first.to_le_bytes());
        put(&mut out, 16, &self.synced.to_le_bytes());
        put(&mut out, 24, &self.count.to_le_bytes());
        put(&mut out, 28, &self.plain.to_le_bytes());
        put(&mut out, 32, &self.stored.to_le_bytes());
        put(&mut out, 36, &self.checksum.to_le_bytes());
        let sum = checksum(id, &out);
        put(&mut out, 44, &sum.to_le_bytes());
        out
    }

    /// Decodes a header of the journal `id`. `None` for anything that [`encode`](Self::encode) does
    /// not return for a header that makes sense.
    #[must_use]
    pub fn decode(bytes: &[u8; HEADER], id: &JournalId) -> Option<Self> {
        if bytes[..4] != MAGIC || word(bytes, 44) != checksum(id, bytes) {
            return None;
        }
        let kind = match word(bytes, 4) {
            0 => Kind::Plain,
            1 => Kind::Zstd,
            2 => Kind::End,
            _ => return None,
        };
        let header = Self {
            kind,
            first: long(bytes, 8),
            synced: long(bytes, 16),
            count: word(bytes, 24),
            plain: word(bytes, 28),
            stored: word(bytes, 32),
            checksum: word(bytes, 36),
        };
        let (plain, stored) = (header.plain as usize, header.stored as usize);
        let lengths = match kind {
            Kind::Plain => header.count > 0 && plain == stored,
            Kind::Zstd => header.count > 0,
            Kind::End => header.count == 0 && plain == 0 && stored == 0,
        };
        let fits = plain <= PAYLOAD_MAX
            && stored <= PAYLOAD_MAX
            && (header.count as usize).saturating_mul(LENGTH) <= plain
            && header.first.checked_add(header.count.into()).is_some()
            && header.synced < header.first;
        (lengths && fits && word(bytes, 40) == 0).then_some(header)
    }

    /// Position of the record behind the batch.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.first + u64::from(self.count)
    }
}

/// The header's checksum. The id goes into it, so that no batch of another journal is taken for one
/// of this: a file system may give a file blocks that were another's.
fn checksum(id: &JournalId, header: &[u8; HEADER]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(id);
    hasher.update(&header[..HEADER - 4]);
    hasher.finalize()
}

/// Appends a record to a payload.
pub fn push(payload: &mut Vec<u8>, record: &[u8]) {
    payload.extend_from_slice(&(record.len() as u32).to_le_bytes());
    payload.extend_from_slice(record);
}

/// The record that begins at `at` of a payload, as the range of its bytes. `None` if it does not
/// end in the payload.
#[must_use]
pub fn record(payload: &[u8], at: usize) -> Option<std::ops::Range<usize>> {
    let begin = at.checked_add(LENGTH).filter(|begin| *begin <= payload.len())?;
    let end = begin.checked_add(word(payload, at) as usize)?;
    (end <= payload.len()).then_some(begin..end)
}

/// Makes whole batches of payloads.
pub struct Encoder {
    id: JournalId,
    compressor: Option<zstd::bulk::Compressor<'static>>,
    batch: Vec<u8>,
}

impl Encoder {
    /// An encoder for the journal `id`.
    ///
    /// # Errors
    /// When there is no memory for the compressor.
    pub fn new(id: JournalId, compress: bool) -> io::Result<Self> {
        let compressor = match compress {
            true => Some(zstd::bulk::Compressor::new(LEVEL)?),
            false => None,
        };
        Ok(Self { id, compressor, batch: Vec::new() })
    }

    /// The batch of the `count` records in `payload`, the first of which has position `first`.
    pub fn batch(&mut self, first: u64, count: u32, synced: u64, payload: &[u8]) -> &[u8] {
        self.batch.clear();
        self.batch.resize(HEADER, 0);
        let kind = match self.compress(payload) {
            true => Kind::Zstd,
            false => {
                self.batch.truncate(HEADER);
                self.batch.extend_from_slice(payload);
                Kind::Plain
            }
        };
        let stored = &self.batch[HEADER..];
        let header = Header {
            kind,
            first,
            synced,
            count,
            plain: payload.len() as u32,
            stored: stored.len() as u32,
            checksum: crc32fast::hash(stored),
        };
        let header = header.encode(&self.id);
        self.batch[..HEADER].copy_from_slice(&header);
        &self.batch
    }

    /// The batch that was encoded last.
    #[must_use]
    pub fn last(&self) -> &[u8] {
        &self.batch
    }

    /// Puts the compressed payload behind the header, and says whether it is worth it: an eighth
    /// shorter.
    fn compress(&mut self, payload: &[u8]) -> bool {
        let Some(compressor) = self.compressor.as_mut().filter(|_| payload.len() >= COMPRESS_FROM)
        else {
            return false;
        };
        let most = payload.len() - payload.len() / 8;
        self.batch.resize(HEADER + most, 0);
        // It fails where the result would be longer than that.
        match compressor.compress_to_buffer(payload, &mut self.batch[HEADER..]) {
            Ok(length) => {
                self.batch.truncate(HEADER + length);
                true
            }
            Err(_) => false,
        }
    }

    /// The end of a segment, where record `next` begins the next one.
    #[must_use]
    pub fn end(&self, next: u64, synced: u64) -> [u8; HEADER] {
        let (kind, checksum) = (Kind::End, crc32fast::hash(&[]));
        Header { kind, first: next, synced, count: 0, plain: 0, stored: 0, checksum }
            .encode(&self.id)
    }
}

/// Opens payloads.
pub struct Decoder {
    decompressor: zstd::bulk::Decompressor<'static>,
}

impl Decoder {
    /// A decoder.
    ///
    /// # Errors
    /// When there is no memory for the decompressor.
    pub fn new() -> io::Result<Self> {
        Ok(Self { decompressor: zstd::bulk::Decompressor::new()? })
    }

    /// Puts into `payload` the one that `stored`, whose checksum has been verified, is stored for,
    /// and checks that it has as many records as the header says.
    ///
    /// # Errors
    /// What is wrong. Then the batch was not made by [`Encoder`].
    pub fn open(
        &mut self,
        header: &Header,
        stored: &[u8],
        payload: &mut Vec<u8>,
    ) -> Result<(), &'static str> {
        payload.clear();
        match header.kind {
            Kind::End => {}
            Kind::Plain => payload.extend_from_slice(stored),
            Kind::Zstd => {
                let plain = header.plain as usize;
                payload.reserve_exact(plain);
                let length = self.decompressor.decompress_to_buffer(stored, payload);
                if !length.is_ok_and(|length| length == plain) {
                    return Err("its payload cannot be decompressed");
                }
            }
        }
        let mut at = 0;
        for _ in 0..header.count {
            at = record(payload, at).ok_or("a record does not end in its batch")?.end;
        }
        if at != payload.len() {
            return Err("there is more in a batch than its records");
        }
        Ok(())
    }
}
