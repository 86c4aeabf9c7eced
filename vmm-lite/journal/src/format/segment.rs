//! The header of a segment.

use super::{
    JournalId, Refused,
    fields::{check_start, long, put, put_start, seal},
};

/// First bytes of a segment.
pub const MAGIC: [u8; 8] = *b"vmllog\0\0";
/// Size of the header, in bytes; batches follow.
pub const HEADER: usize = 64;

/// Encodes the header of the journal `id`'s segment that begins with record `first`.
#[must_use]
pub fn encode(id: &JournalId, first: u64) -> [u8; HEADER] {
    let mut out = [0; HEADER];
    put_start(&mut out, &MAGIC, id);
    put(&mut out, 32, &first.to_le_bytes());
    seal(&mut out);
    out
}

/// Checks the header of the journal `id`'s segment whose name says that it begins with `first`.
///
/// # Errors
/// When it is not what [`encode`] returned for these.
pub fn check(header: &[u8; HEADER], id: &JournalId, first: u64) -> Result<(), Refused> {
    if check_start(header, &MAGIC)? != *id {
        return Err(Refused::Because("it belongs to another journal"));
    }
    if long(header, 32) != first {
        return Err(Refused::Because("it begins with another record than its name says"));
    }
    Ok(())
}
