//! The records of one message: each behind its length.

use super::header::RECORDS_MAX;
use crate::wire::WireError;

/// Longest record: it fits a message with its length.
pub const RECORD_MAX: usize = RECORDS_MAX as usize - LENGTH;
/// Size of a length, in bytes.
const LENGTH: usize = 4;

/// Appends a record of at most [`RECORD_MAX`] bytes.
pub fn put_record(records: &mut Vec<u8>, record: &[u8]) {
    records.extend((record.len() as u32).to_le_bytes());
    records.extend(record);
}

/// The records of a message that has `count` of them.
///
/// # Errors
/// [`WireError::Body`]: these are not that many records.
pub fn split_records(mut records: &[u8], count: u64) -> Result<Vec<&[u8]>, WireError> {
    let wrong = WireError::Body("records");
    let mut split = Vec::new();
    while let Some((length, rest)) = records.split_first_chunk::<LENGTH>() {
        let length = u32::from_le_bytes(*length) as usize;
        let (record, rest) = rest.split_at_checked(length).ok_or(wrong.clone())?;
        split.push(record);
        records = rest;
    }
    if records.is_empty() && split.len() as u64 == count { Ok(split) } else { Err(wrong) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn records_come_back(records in prop::collection::vec(
            prop::collection::vec(any::<u8>(), 1..50), 1..20), cut in 1_usize..40,
        ) {
            let mut bytes = Vec::new();
            records.iter().for_each(|record| put_record(&mut bytes, record));
            let count = records.len() as u64;
            prop_assert_eq!(split_records(&bytes, count).unwrap(), records);
            prop_assert!(split_records(&bytes, count + 1).is_err());
            bytes.truncate(bytes.len().saturating_sub(cut));
            prop_assert!(split_records(&bytes, count).is_err());
        }
    }
}
