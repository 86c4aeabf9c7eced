//! A replication connection, as a hostile peer feeds it, and the state machines behind it.
//!
//! Input: a byte whose bit 0 says whether checksums are corrected, and messages: headers and
//! bodies.

use std::time::Duration;

use migrate::replication::{
    Commit, Primary, Settings, Standby,
    arbiter::{Answer, MemberId, Record, SetId, Term, Version, Versioned},
    primary, standby,
    wire::{Decoder, HEADER_SIZE, Header, Message, Seeding},
};
use vmm::{migration::handover::Handover, replication::protection::Offer};

const SET: SetId = SetId([9; 16]);
const PRIMARY: MemberId = MemberId([1; 16]);
const STANDBY: MemberId = MemberId([2; 16]);
const NOW: Duration = Duration::from_secs(1);
/// Records that the primary has.
const LAST: u64 = 6;

/// A decoded message can be encoded, and decodes to the same. A hostile standby gets no output
/// released that the primary does not have; a hostile primary makes the standby execute records in
/// their order only, and take over only what it gives it.
pub fn check(data: &[u8]) {
    let messages = messages(data);
    a_primary_hears(&messages);
    a_standby_hears(&messages);
    a_standby_is_seeded(&messages);
}

/// What the VMM reads in the messages of a seeding is what it would have sent, or refused.
fn a_standby_is_seeded(messages: &[Message]) {
    for message in messages {
        match message {
            Message::Seeding(Seeding::Offer(bytes)) => {
                if let Ok(offer) = Offer::from_bytes(bytes) {
                    assert_eq!(Offer::from_bytes(&offer.to_bytes()).ok(), Some(offer));
                }
            }
            Message::Seeding(Seeding::Seed(seed)) => drop(Handover::from_bytes(&seed.state)),
            _ => {}
        }
    }
}

/// Whether the input has an offer that a standby would consider.
#[must_use]
pub fn offers(data: &[u8]) -> bool {
    let valid = |message: &Message| match message {
        Message::Seeding(Seeding::Offer(bytes)) => Offer::from_bytes(bytes).is_ok(),
        _ => false,
    };
    messages(data).iter().any(valid)
}

/// Whether the input gives the VM to the standby.
#[must_use]
pub fn gives(data: &[u8]) -> bool {
    a_standby_hears(&messages(data))
}

/// The messages of an input, up to what is none.
#[must_use]
pub fn messages(data: &[u8]) -> Vec<Message> {
    let Some((flags, bytes)) = data.split_first() else { return Vec::new() };
    let bytes = if flags & 1 == 0 { bytes.to_vec() } else { corrected(bytes) };
    let (mut decoder, mut messages) = (Decoder::new(), Vec::new());
    // In pieces of every size.
    let (mut rest, mut size) = (&bytes[..], 1);
    while !rest.is_empty() {
        let (piece, more) = rest.split_at(size.min(rest.len()));
        decoder.feed(piece);
        loop {
            match decoder.next_message() {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(_) => return messages,
            }
        }
        (rest, size) = (more, size % 97 + 7);
    }
    messages.iter().for_each(round_trip);
    messages
}

/// The same, with headers that fit the bodies.
fn corrected(mut bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some((head, rest)) = bytes.split_first_chunk::<HEADER_SIZE>() {
        let Ok(header) = Header::decode(head) else { break };
        let (body, rest) = rest.split_at(rest.len().min(header.length as usize));
        out.extend(Header::of(header.kind, &[body]).encode());
        out.extend(body);
        bytes = rest;
    }
    [&out[..], bytes].concat()
}

fn round_trip(message: &Message) {
    let mut decoder = Decoder::new();
    decoder.feed(&message.encode());
    let arrived = decoder.next_message().expect("a sent message is valid").expect("all of it");
    match (&arrived, message) {
        // A long text is truncated.
        (Message::Divergence { what: short, .. }, Message::Divergence { what: long, .. })
        | (Message::Seeding(Seeding::Refuse(short)), Message::Seeding(Seeding::Refuse(long))) => {
            assert!(short == long || short.chars().count() == 1000 && long.starts_with(short));
        }
        _ => assert_eq!(&arrived, message),
    }
}

fn settings() -> Settings {
    Settings { commit: Commit::Received, ..Settings::default() }
}

fn a_primary_hears(messages: &[Message]) {
    let (mut machine, _) = Primary::begin(PRIMARY, SET, settings(), 0, NOW);
    machine.handle(primary::Event::Arbiter(Answer::Swapped(Version(1))), NOW);
    machine.handle(primary::Event::Seeded { member: STANDBY, base: 0 }, NOW);
    machine.handle(primary::Event::Arbiter(Answer::Swapped(Version(2))), NOW);
    machine.handle(primary::Event::Appended { last: LAST, bytes: 60 }, NOW);
    for message in messages {
        let event = primary::Event::Message { from: STANDBY, message: message.clone() };
        for action in machine.handle(event, NOW) {
            match action {
                primary::Action::Release(up_to) => assert!(up_to <= LAST),
                primary::Action::Fence { term } => assert!(term > Term(2)),
                primary::Action::Stop | primary::Action::HandedOver => panic!("nobody asked"),
                _ => {}
            }
        }
        machine.handle(primary::Event::Tick, NOW);
    }
}

fn a_standby_hears(messages: &[Message]) -> bool {
    let mut machine = Standby::begin((STANDBY, PRIMARY), SET, settings(), 4, NOW);
    let (term, in_sync) = (Term(2), vec![STANDBY]);
    let record = Record { set: SET, term, active: PRIMARY, in_sync };
    let known = Message::Membership(Versioned { version: Version(2), record }, Commit::Received);
    machine.handle(standby::Event::Message(known), NOW);
    let (mut last, mut taken) = (4, false);
    for message in messages {
        let given = matches!(message, Message::Yours { position, .. } if *position == last);
        for action in machine.handle(standby::Event::Message(message.clone()), NOW) {
            match action {
                standby::Action::Execute { first, last: to, records } => {
                    assert!(first == last + 1 && to >= first);
                    assert!(to - first < records.len() as u64);
                    last = to;
                }
                standby::Action::Released(up_to) => assert!(up_to <= last),
                standby::Action::TakeOver { position, .. } => {
                    assert!(given && position == last, "a standby took over unasked");
                    taken = true;
                }
                _ => {}
            }
        }
        let event = standby::Event::Executed(machine.received());
        let actions = machine.handle(event, NOW);
        let took = actions.iter().any(|a| matches!(a, standby::Action::TakeOver { .. }));
        assert!(given || !took, "a standby took over unasked");
        taken |= took;
    }
    taken
}
