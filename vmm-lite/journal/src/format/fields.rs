//! Little-endian fields of headers, and the beginning that those of all files share.

use super::{JournalId, MAJOR, MINOR, Refused};

pub fn put(out: &mut [u8], at: usize, bytes: &[u8]) {
    out[at..at + bytes.len()].copy_from_slice(bytes);
}

/// The `N` bytes at `at`, which the caller knows to be there.
pub fn at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    std::array::from_fn(|i| bytes[at + i])
}

pub fn half(bytes: &[u8], n: usize) -> u16 {
    u16::from_le_bytes(at(bytes, n))
}

pub fn word(bytes: &[u8], n: usize) -> u32 {
    u32::from_le_bytes(at(bytes, n))
}

pub fn long(bytes: &[u8], n: usize) -> u64 {
    u64::from_le_bytes(at(bytes, n))
}

/// Writes the beginning of a file's header.
pub fn put_start(out: &mut [u8], magic: &[u8; 8], id: &JournalId) {
    put(out, 0, magic);
    put(out, 8, &MAJOR.to_le_bytes());
    put(out, 10, &MINOR.to_le_bytes());
    put(out, 16, id);
}

/// Checks the beginning of a header of at least 36 bytes whose last four are the checksum of those
/// before, and returns the journal's id. A file whose version is not known is not judged
/// further.
pub fn check_start(header: &[u8], magic: &[u8; 8]) -> Result<JournalId, Refused> {
    if header[..8] != *magic {
        return Err(Refused::Because("it does not begin like such a file"));
    }
    if half(header, 8) != MAJOR {
        return Err(Refused::Version(half(header, 8)));
    }
    let end = header.len() - 4;
    if word(header, end) != crc32fast::hash(&header[..end]) {
        return Err(Refused::Because("the checksum of its header is wrong"));
    }
    Ok(at(header, 16))
}

/// Puts the checksum of a header into its last four bytes.
pub fn seal(header: &mut [u8]) {
    let end = header.len() - 4;
    let sum = crc32fast::hash(&header[..end]);
    put(header, end, &sum.to_le_bytes());
}
