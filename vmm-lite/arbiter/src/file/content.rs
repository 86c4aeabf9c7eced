//! The content of a record's file: `VERSION ENTRY` on one line, and a checksum of that line.
//!
//! Files are replaced as a whole, so a torn one means that the storage has lost data. It is
//! reported, never taken for an older record or for none.

use crate::{
    entry::{Entry, TEXT_MAX},
    error::Error,
    record::{SetId, Version},
    swap::Current,
};

/// Longest file that is read: the entry, its version and the checksum.
pub const FILE_MAX: usize = TEXT_MAX + 64;

/// A file's content.
pub fn write(version: Version, entry: &Entry) -> Vec<u8> {
    let line = format!("{} {}\n", version.0, entry.text());
    let sum = crc32fast::hash(line.as_bytes());
    format!("{line}crc32 {sum:08x}\n").into_bytes()
}

/// Reads a file's content.
pub fn read(set: SetId, content: &[u8]) -> Result<Current, Error> {
    let damaged = |why: &str| Error::Damaged(format!("set {set}: {why}"));
    if content.len() > FILE_MAX {
        return Err(damaged("its file is too long"));
    }
    let end = content.iter().position(|byte| *byte == b'\n').map(|end| end + 1);
    let (line, sum) = content.split_at(end.ok_or_else(|| damaged("its file has no line"))?);
    if sum != format!("crc32 {:08x}\n", crc32fast::hash(line)).as_bytes() {
        return Err(damaged(
            "the checksum of its file is wrong: the storage has lost or changed data. If no member \
             of the set runs, remove the file",
        ));
    }
    let line = &line[..line.len() - 1];
    let space = line.iter().position(|byte| *byte == b' ');
    let (version, text) = line.split_at(space.ok_or_else(|| damaged("its file has no version"))?);
    let version = std::str::from_utf8(version).ok().and_then(|text| text.parse().ok());
    let version = Version(version.ok_or_else(|| damaged("its file has no version"))?);
    let Entry { record, writer } = Entry::parse(set, &text[1..])?;
    Ok(Current { record, version, writer })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MemberId, Nonce, Record, Term};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_changed_or_cut_file_is_taken_for_a_record(
            version in 1_u64.., term in 1_u64.., ids in any::<[[u8; 16]; 4]>(),
            at in any::<prop::sample::Index>(), flip in 1..=255_u8,
        ) {
            let [set, active, standby, writer] = ids;
            let record = Record {
                set: SetId(set),
                term: Term(term),
                active: MemberId(active),
                in_sync: if standby == active { vec![] } else { vec![MemberId(standby)] },
            };
            let entry = Entry { record: record.clone(), writer: Nonce(writer) };
            let content = write(Version(version), &entry);
            prop_assert_eq!(
                read(SetId(set), &content),
                Ok(Current { record, version: Version(version), writer: Nonce(writer) })
            );
            let at = at.index(content.len());
            prop_assert!(read(SetId(set), &content[..at]).is_err());
            let mut flipped = content.clone();
            flipped[at] ^= flip;
            prop_assert!(read(SetId(set), &flipped).is_err());
            prop_assert!(read(SetId(set), &[&content[..], b"x"].concat()).is_err());
        }
    }
}
