//! The content of a record's file: `VERSION ENTRY` on one line, and a checksum of that line.
//!
//! A file gets its name when it is complete, so a torn one means that the storage has lost data. It
//! is reported, never taken for an older record or for none.

use crate::{
    entry::{Entry, TEXT_MAX},
    error::Error,
    record::{SetId, Version},
    swap::Current,
};

/// Longest file that is read: the entry, its version and the checksum.
pub const FILE_MAX: usize = TEXT_MAX + 64;
/// In the place of an entry: the record was removed.
const REMOVED: &str = "removed";

/// A file's content; `None`: the record was removed.
pub fn write(version: Version, entry: Option<&Entry>) -> Vec<u8> {
    let text = entry.map_or(REMOVED.to_owned(), Entry::text);
    let line = format!("{} {text}\n", version.0);
    let sum = crc32fast::hash(line.as_bytes());
    format!("{line}crc32 {sum:08x}\n").into_bytes()
}

/// Reads the content of the file for this version.
pub fn read(set: SetId, version: Version, content: &[u8]) -> Result<Option<Current>, Error> {
    let damaged = |why: &str| Error::Damaged(format!("set {set}, version {}: {why}", version.0));
    if content.len() > FILE_MAX {
        return Err(damaged("its file is too long"));
    }
    let end = content.iter().position(|byte| *byte == b'\n').map(|end| end + 1);
    let (line, sum) = content.split_at(end.ok_or_else(|| damaged("its file has no line"))?);
    if sum != format!("crc32 {:08x}\n", crc32fast::hash(line)).as_bytes() {
        return Err(damaged(
            "the checksum of its file is wrong: the storage has lost or changed data. If no member \
             of the set runs, remove its directory",
        ));
    }
    let text = line[..line.len() - 1].strip_prefix(format!("{} ", version.0).as_bytes());
    let text = text.ok_or_else(|| damaged("its file is of another version"))?;
    if text == REMOVED.as_bytes() {
        return Ok(None);
    }
    let Entry { record, writer } = Entry::parse(set, text)?;
    Ok(Some(Current { record, version, writer }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MemberId, Nonce, Record, Term};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_changed_or_cut_file_is_taken_for_a_record(
            version in 1_u64.., term in 1..u64::MAX, ids in any::<[[u8; 16]; 4]>(),
            at in any::<prop::sample::Index>(), flip in 1..=255_u8, removed in any::<bool>(),
        ) {
            let [set, active, standby, writer] = ids;
            let record = Record {
                set: SetId(set),
                term: Term(term),
                active: MemberId(active),
                in_sync: if standby == active { vec![] } else { vec![MemberId(standby)] },
            };
            let (set, version) = (SetId(set), Version(version));
            let entry = Entry { record: record.clone(), writer: Nonce(writer) };
            let content = write(version, (!removed).then_some(&entry));
            let current = (!removed).then_some(Current { record, version, writer: entry.writer });
            prop_assert_eq!(read(set, version, &content), Ok(current));
            prop_assert!(read(set, Version(version.0 - 1), &content).is_err());
            let at = at.index(content.len());
            prop_assert!(read(set, version, &content[..at]).is_err());
            let mut flipped = content.clone();
            flipped[at] ^= flip;
            prop_assert!(read(set, version, &flipped).is_err());
            prop_assert!(read(set, version, &[&content[..], b"x"].concat()).is_err());
        }
    }
}
