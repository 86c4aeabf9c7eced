//! The decoder of messages between hosts, as a hostile peer feeds it.
//!
//! Input: a byte for the VM's size, a byte whose bit 0 says whether the checksum is corrected, and
//! a message: header and body.

use migrate::{
    PAGE,
    offer::Refusal,
    wire::{HEADER_SIZE, Header, Kind, Message, PAGES_PER_FRAME, WireError, decode},
};

/// A decoded message can be encoded, within its kind's limit, and decodes to the same; it names no
/// page outside the VM.
pub fn check(data: &[u8]) {
    message(data);
}

/// The same; returns the message, if it is valid.
pub fn message(data: &[u8]) -> Option<Message> {
    let [size, flags, message @ ..] = data else { return None };
    let (header, body) = message.split_first_chunk::<HEADER_SIZE>()?;
    let header = Header::decode(header).ok()?;
    assert!(header.length <= header.kind.most(), "a length that its kind does not allow");
    assert_eq!(Header::decode(&header.encode()).as_ref(), Ok(&header));
    let body = &body[..body.len().min(header.length as usize)];
    let header = match flags & 1 {
        0 => header,
        _ => Header::of(header.kind, body.len() as u32, crc32fast::hash(body)),
    };
    let limit = usize::from(*size);
    let message = decode(&header, body, limit).ok()?;
    assert_eq!(message.kind(), header.kind);
    inside(&message, limit);
    round_trip(&message, limit);
    Some(message)
}

/// A message as it arrives at a VM of `limit` pages.
///
/// # Errors
/// The receiver's error.
pub fn sent(message: &Message, limit: usize) -> Result<Message, WireError> {
    let bytes = message.encode();
    let (header, body) = bytes.split_first_chunk::<HEADER_SIZE>().expect("it has a header");
    let header = Header::decode(header)?;
    assert_eq!(header.length as usize, body.len());
    decode(&header, body, limit)
}

/// A message arrives as it was sent.
pub fn round_trip(message: &Message, limit: usize) {
    let arrived = sent(message, limit).expect("a sent message is valid");
    match (&arrived, message) {
        // A long reason is truncated.
        (Message::Abort(short), Message::Abort(long))
        | (Message::Refuse(Refusal::Prepare(short)), Message::Refuse(Refusal::Prepare(long))) => {
            assert!(short == long || short.chars().count() == 1000 && long.starts_with(short))
        }
        _ => assert_eq!(&arrived, message),
    }
}

fn inside(message: &Message, limit: usize) {
    match message {
        Message::Pages(pages) => {
            assert!((1..=PAGES_PER_FRAME).contains(&pages.len()));
            assert!(pages.iter().all(|(n, _)| *n < limit as u64));
            assert!(pages.len() * PAGE <= Kind::Pages.most() as usize);
        }
        Message::Zero(runs)
        | Message::Follow(runs)
        | Message::Want(runs)
        | Message::Lacks(runs) => {
            let end = |(first, count): &(u64, u64)| u128::from(*first) + u128::from(*count);
            assert!(runs.iter().all(|run| end(run) <= limit as u128));
        }
        _ => {}
    }
}
