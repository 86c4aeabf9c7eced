//! What comes to a standby's listener, and what a primary is told to use, is wrong in every way: it
//! is refused in words that say what to do, the standby waits on, and the VM runs on.

use crate::{arbiter::Kind, bed::Bed};
use ::arbiter::{Outcome, Swap};
use migrate::replication::{
    arbiter::{MemberId, Record, SetId, Term, Version},
    wire::{Message, Seeding},
};
use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    time::Instant,
};
use vmm_lite_lab::{process::Process, vmm::TIMEOUT};

/// Hosts that trust each other without keys, so that these tests can speak to the listener.
fn plain(test: &str) -> Option<Bed> {
    let mut bed = Bed::new(test, Kind::File, 1)?;
    bed.security = &["--plaintext"];
    Some(bed)
}

/// A connection to the standby's listener, from the primary's host.
fn dial(bed: &Bed) -> TcpStream {
    let to = bed.there().strip_prefix("tcp://").unwrap().to_owned();
    let stream = bed.vmms[bed.active].host().ns.enter(move || TcpStream::connect(to));
    let stream = stream.unwrap().unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream
}

const SET: SetId = SetId([3; 16]);
const PRIMARY: MemberId = MemberId([4; 16]);

fn hello() -> Vec<u8> {
    Message::Seeding(Seeding::Hello { set: SET, from: PRIMARY }).encode()
}

/// What a primary has written down before it says hello.
fn record(bed: &Bed) {
    let mut client = ::arbiter::in_thread(bed.arbiter.name().parse().unwrap()).unwrap();
    let record = Record { set: SET, term: Term(1), active: PRIMARY, in_sync: vec![] };
    let swap = Swap::new(Version::NONE, record).unwrap();
    assert!(matches!(client.swap(&swap, TIMEOUT).unwrap(), Outcome::Won(_)));
}

/// The VM runs, unprotected, and has lost nothing.
#[track_caller]
fn runs_on(bed: &mut Bed, after: &str) {
    bed.oracle.hears().unwrap_or_else(|e| panic!("{after}: {e}"));
    bed.oracle.check().unwrap_or_else(|e| panic!("{after}: {e}"));
    let heard = bed.heard().unwrap_or_else(|e| panic!("{after}: {e}"));
    assert_eq!(heard.order, [bed.active], "{after}");
    assert!(bed.lives(bed.active), "{after}: {}", bed.said());
}

/// `protect` fails with these words.
#[track_caller]
fn refused(bed: &mut Bed, to: &str, arbiter: &str, words: &[&str]) {
    let began = Instant::now();
    let said = bed.protect_by(to, arbiter).unwrap_err();
    eprintln!("{said}");
    for word in words {
        assert!(said.contains(word), "not {word:?}: {said}\n{}", bed.said());
    }
    assert!(began.elapsed() < TIMEOUT / 2, "{:?}", began.elapsed());
    runs_on(bed, &said);
}

#[test]
fn nonsense_at_the_listener_changes_nothing() {
    let Some(mut bed) = plain("nonsense at a standby") else { return };
    bed.stand_by(None);
    record(&bed);
    let mut version = hello();
    version[4] ^= 2;
    let mut length = hello();
    length[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
    let mut checksum = hello();
    *checksum.last_mut().unwrap() ^= 1;
    let heartbeat = Message::Goodbye.encode();
    let pages = [hello(), heartbeat.clone()].concat();
    let nonsense = [vec![0; 4096], b"GET / HTTP/1.1\r\n\r\n".to_vec(), vec![0xff; 64]];
    let nonsense = [&nonsense[..], &[version, length, checksum, heartbeat, pages]].concat();
    for bytes in &nonsense {
        let mut stream = dial(&bed);
        // It may be closed before all of it is sent.
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(Shutdown::Write);
        // Until the standby has judged it.
        let _ = stream.read_to_end(&mut Vec::new());
    }
    // Every beginning of a handshake.
    for end in 0..hello().len() {
        let mut stream = dial(&bed);
        stream.write_all(&hello()[..end]).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    }
    assert!(bed.lives(1), "{}", bed.said());
    bed.protect().unwrap_or_else(|e| panic!("{e}\n{}", bed.said()));
    runs_on(&mut bed, "nonsense");
}

/// It has the standby for itself, until it is found to be silent or is gone.
#[test]
fn a_primary_that_hangs_keeps_the_standby_no_longer_than_it_may() {
    let Some(mut bed) = plain("a primary hangs") else { return };
    bed.stand_by(None);
    record(&bed);
    let mut hangs = dial(&bed);
    hangs.write_all(&hello()).unwrap();
    // The standby has welcomed it.
    hangs.read_exact(&mut [0; 16]).unwrap();
    let (there, arbiter) = (bed.there(), bed.arbiter.name());
    refused(&mut bed, &there, &arbiter, &["refused", "being seeded"]);
    // It is closed by the standby.
    hangs.read_to_end(&mut Vec::new()).unwrap();
    bed.protect().unwrap_or_else(|e| panic!("{e}\n{}", bed.said()));
    runs_on(&mut bed, "a primary that hung");
}

#[test]
fn a_standby_protects_one_vm_once() {
    let Some(mut bed) = plain("a second protect") else { return };
    bed.protected(None).unwrap();
    let (there, arbiter) = (bed.there(), bed.arbiter.name());
    refused(&mut bed, &there, &arbiter, &["refused"]);
    // The first one stands.
    bed.until("in sync", |r| r["standbys"][0]["in_sync"] == true).unwrap();
    bed.verb("failover").unwrap();
    bed.active = 1;
    bed.oracle.hears().unwrap();
    bed.oracle.check().unwrap();
}

#[test]
fn a_vm_that_is_too_big_is_refused() {
    let Some(mut bed) = plain("a VM that is too big") else { return };
    bed.stand_by_with(None, &["--memory-max", "16M"], &bed.arbiter.name());
    let (there, arbiter) = (bed.there(), bed.arbiter.name());
    refused(&mut bed, &there, &arbiter, &["refused", "memory"]);
    assert!(bed.lives(1), "{}", bed.said());
}

#[test]
fn without_a_standby_there_is_no_protection() {
    let Some(mut bed) = plain("no standby") else { return };
    let (there, arbiter) = (bed.there(), bed.arbiter.name());
    refused(&mut bed, &there, &arbiter, &["reach", "standby --listen"]);
    // A destination of moves is none.
    let _receives = bed.vmms[1].receive(7100, &["--plaintext", "--tap", "tap0"]).unwrap();
    refused(&mut bed, &there, &arbiter, &[]);
}

#[test]
fn an_arbiter_that_is_missing_or_another_one_is_named() {
    let Some(mut bed) = plain("wrong arbiters") else { return };
    bed.stand_by(None);
    let there = bed.there();
    for missing in ["etcd://127.0.0.1:1", "file:/no/such/directory"] {
        refused(&mut bed, &there, missing, &["arbiter"]);
        assert!(bed.lives(1), "{}", bed.said());
        bed.stand_by(None);
    }
    // The standby asks another one, and finds no record there.
    let other = tempfile::tempdir().unwrap();
    let other = format!("file:{}", other.path().display());
    refused(&mut bed, &there, &other, &["refused", "no record", "--arbiter"]);
    let unreachable = "etcd://127.0.0.1:1";
    bed.stand_by_with(None, &[], unreachable);
    let arbiter = bed.arbiter.name();
    refused(&mut bed, &there, &arbiter, &["refused", "this standby's arbiter does not answer"]);
}

#[test]
fn a_standby_with_an_arbiter_that_is_none_does_not_start() {
    let Some(bed) = plain("no arbiter for a standby") else { return };
    let url = bed.there();
    for arbiter in ["zookeeper://10.0.0.9", "file:locks", "etcd://"] {
        let args = ["standby", "--listen", &url, "--arbiter", arbiter, "--plaintext"];
        let mut standby = Process::start(bed.vmms[1].command(&args).unwrap()).unwrap();
        assert!(!standby.wait(TIMEOUT).unwrap().success());
        let said = standby.output();
        assert!(said.contains("arbiter"), "{said}");
    }
}
