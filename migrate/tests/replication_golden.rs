//! The bytes of every message of a replication connection are those that other builds of the same
//! version send.
//!
//! `golden/replication-VERSION` has a line for each: its kind, and its bytes in hexadecimal. A
//! change of what a message looks like fails here; it needs another version, and another file.

use migrate::replication::{
    Commit,
    arbiter::{MemberId, Record, SetId, Term, Version, Versioned},
    wire::{Decoder, Kind, Message, RecordsHead, Seed, Seeding, VERSION, records_head},
};
use std::{fmt::Write, fs, path::PathBuf};

fn messages() -> Vec<Message> {
    let in_sync = vec![MemberId([2; 16]), MemberId([3; 16])];
    let record =
        Record { set: SetId([9; 16]), term: Term(300), active: MemberId([1; 16]), in_sync };
    let record = Versioned { version: Version(70_000), record };
    let head = RecordsHead { first: 5, last: 6, released: 4, stamp_ns: 1_000_000 };
    vec![
        Message::Records(head, vec![7; 20]),
        Message::Ack { received: 6, executed: 5, stamp_ns: 1_000_000 },
        Message::Heartbeat { term: Term(300), released: 4 },
        Message::Membership(record.clone(), Commit::Executed),
        Message::Yours { position: 6, record },
        Message::Mine { position: 6, term: Term(300) },
        Message::Divergence { position: 6, what: "another frame".into() },
        Message::Goodbye,
        Message::Dropped(Term(301)),
        Message::Seeding(Seeding::Hello { set: SetId([9; 16]), from: MemberId([1; 16]) }),
        Message::Seeding(Seeding::Welcome(MemberId([2; 16]))),
        Message::Seeding(Seeding::Offer(vec![1, 2, 3])),
        Message::Seeding(Seeding::Accept),
        Message::Seeding(Seeding::Refuse("no memory".into())),
        Message::Seeding(Seeding::Pages(vec![7, 9], vec![5; 8192])),
        Message::Seeding(Seeding::Seed(Seed { position: 5, samples: 2, state: vec![4; 3] })),
        Message::Seeding(Seeding::Ready),
        Message::Forwarded(vec![8; 20]),
    ]
}

fn golden() -> PathBuf {
    let name = format!("tests/golden/replication-{VERSION}");
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn text() -> String {
    let mut text = String::new();
    for message in messages() {
        write!(text, "{:?} ", message.kind()).unwrap();
        message.encode().iter().for_each(|byte| write!(text, "{byte:02x}").unwrap());
        text.push('\n');
    }
    text
}

#[test]
fn replication_messages_have_the_bytes_that_other_builds_send() {
    assert!(messages().iter().map(Message::kind).eq(Kind::ALL));
    let kept = fs::read_to_string(golden()).expect("a file for this version");
    assert_eq!(text(), kept);
    for (message, line) in messages().into_iter().zip(kept.lines()) {
        let hex = line.split(' ').nth(1).unwrap().as_bytes();
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16);
        let bytes: Vec<u8> = hex.chunks(2).map(|pair| byte(pair).unwrap()).collect();
        let mut decoder = Decoder::new();
        decoder.feed(&bytes);
        assert_eq!(decoder.next_message(), Ok(Some(message)), "{line}");
    }
}

#[test]
fn records_written_without_a_copy_have_the_same_bytes() {
    let Message::Records(head, records) = messages().remove(0) else { panic!("not records") };
    let written = [&records_head(head, &records)[..], &records].concat();
    assert_eq!(written, Message::Records(head, records).encode());
}

#[test]
#[ignore = "makes a file that is kept"]
fn make_the_file_of_this_version() {
    fs::write(golden(), text()).unwrap();
}
