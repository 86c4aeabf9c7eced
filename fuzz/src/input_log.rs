//! Records of an input log: bytes of a peer or of a journal's file.

use migrate::input_log::{decode, encode};

/// What is decoded has the same value when it is encoded and decoded again.
pub fn check(bytes: &[u8]) {
    let Ok(record) = decode(bytes) else { return };
    let mut again = Vec::new();
    encode(&record, &mut again);
    assert_eq!(decode(&again), Ok(record));
}
