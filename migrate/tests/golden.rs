//! The bytes of every message are those that other builds of the same protocol version send.
//!
//! `golden/messages-VERSION` has a line for each: its kind, and its bytes in hexadecimal. A change
//! of what a message looks like fails here; it needs another protocol version, and another file.

use migrate::{
    PROTOCOL_VERSION,
    brownout::{Brownout, Settled},
    offer::{Offer, Refusal},
    wire::{Accepted, Arrival, HEADER_SIZE, Header, Kind, Message, Outcome, Started, decode},
};
use std::{fmt::Write, fs, path::PathBuf};

/// One of each kind.
fn messages() -> Vec<Message> {
    let (id, receiver) = ([1; 16], [2; 16]);
    let offer = Offer {
        receiver,
        name: "kv".into(),
        memory_size: 16 << 20,
        interface_version: 2,
        network: true,
        identity: vec![3, 4, 5],
    };
    let runs = vec![(0, 1), (300, 70_000)];
    let started = Started { apply_ns: 65_000, run_ns: 7_000, told_ns: 9_000 };
    let brownout = Brownout::Over(8_000_000);
    let settled = Settled { brownout, page_faults: 120, lost_ns: 200_000 };
    vec![
        Message::Hello(id),
        Message::Welcome(id, receiver),
        Message::Offer(Box::new(offer)),
        Message::Accept(Accepted { follow: true, apply_ns: 65_000 }),
        Message::Refuse(Refusal::Memory { needed: 1 << 32, available: 1 << 30 }),
        Message::Zero(runs.clone()),
        Message::RoundEnd(7),
        Message::RoundDone(7),
        Message::State(vec![6; 9]),
        Message::Ready,
        Message::Commit(id, vec![6; 9]),
        Message::Running(started),
        Message::Forwarded(vec![8; 80]),
        Message::ForwardedEnd,
        Message::Abort("it was called off".into()),
        Message::Query(id, receiver),
        Message::Outcome(id, Outcome::Lacking),
        Message::Follow(runs.clone()),
        Message::Want(runs.clone()),
        Message::Filled(64),
        Message::Whole(Arrival { waited: 3, waited_ns: 900_000, worst_ns: 500_000 }),
        Message::Lacks(runs),
        Message::SwitchHint(vec![9; 20]),
        Message::Settled(settled),
        Message::Preparing,
        Message::Stopping,
        Message::Heard,
    ]
}

fn golden() -> PathBuf {
    let name = format!("tests/golden/messages-{PROTOCOL_VERSION}");
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
fn messages_have_the_bytes_that_other_builds_send() {
    // Pages are written by the sender itself, not as a message: see `page_frame`.
    let kinds: Vec<Kind> = messages().iter().map(Message::kind).collect();
    let missing: Vec<_> = Kind::ALL.into_iter().filter(|kind| !kinds.contains(kind)).collect();
    assert_eq!(missing, [Kind::Pages]);
    let kept = fs::read_to_string(golden()).expect("a file for this protocol version");
    assert_eq!(text(), kept);
    for (message, line) in messages().into_iter().zip(kept.lines()) {
        let hex = line.split(' ').nth(1).unwrap().as_bytes();
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16);
        let bytes: Vec<u8> = hex.chunks(2).map(|pair| byte(pair).unwrap()).collect();
        let (header, body) = bytes.split_first_chunk::<HEADER_SIZE>().unwrap();
        let header = Header::decode(header).unwrap();
        assert_eq!(decode(&header, body, usize::MAX), Ok(message), "{line}");
    }
}

/// What a build of the version before sends, before anything else.
#[test]
fn a_peer_of_the_version_before_is_refused_by_its_first_bytes() {
    let mut hello = Message::Hello([1; 16]).encode();
    hello[4..6].copy_from_slice(&(PROTOCOL_VERSION - 1).to_le_bytes());
    let header = hello.first_chunk::<HEADER_SIZE>().unwrap();
    let said = Header::decode(header).unwrap_err().to_string();
    let versions = format!("{}, this host {PROTOCOL_VERSION}", PROTOCOL_VERSION - 1);
    assert!(said.contains(&versions), "{said}");
}

#[test]
#[ignore = "makes a file that is kept"]
fn make_the_file_of_this_version() {
    fs::write(golden(), text()).unwrap();
}
