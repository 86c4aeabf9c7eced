//! What cannot be guessed of a connection before it is seen: its first sequence numbers, and its
//! port.

use super::wire::{A, B, Faults, TestBed, at, config, random};
use crate::{
    entropy::Epoch,
    net::{Error, SocketId, calls::Kind, sequence::Sequence, stack::Config},
};
use alloc::{vec, vec::Vec};
use core::{
    net::{Ipv4Addr, SocketAddrV4},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};
use smoltcp::time::Instant;

fn listening(bed: &mut TestBed, port: u16) -> SocketId {
    let listener = bed.b.socket(Kind::Stream);
    bed.b.bind(listener, at(Ipv4Addr::UNSPECIFIED, port)).unwrap();
    bed.b.listen(listener, 16).unwrap();
    listener
}

/// Connects `a`, from its port 999, to port 80 of `b`. The first numbers of both ends, and what
/// both stacks would give to such a connection when these were sent.
fn first_numbers(bed: &mut TestBed, listener: SocketId) -> [(u32, u32); 2] {
    let client = bed.a.socket(Kind::Stream);
    let (from, to) = (at(A, 999), at(B, 80));
    bed.a.bind(client, from).unwrap();
    let asks = bed.a.sequence.first(bed.a.now, from, to);
    assert_eq!(bed.a.connect(client, to), Err(Error::InProgress));
    let seen = |bed: &TestBed, from: SocketAddrV4| {
        bed.openings().iter().find(|opening| opening.0 == from).map(|opening| opening.2)
    };
    let asked = bed.until(|bed| seen(bed, from));
    let granted = bed.until(|bed| seen(bed, to));
    let grants = bed.b.sequence.first(bed.b.now, to, from);
    let (server, _) = bed.until(|bed| bed.b.accept(listener).ok());
    for _ in 0..2 {
        bed.a.close(client);
        bed.b.close(server);
    }
    bed.until(|bed| (bed.a.socket_count() == 0 && bed.b.socket_count() == 1).then_some(()));
    [(asked, asks), (granted, grants)]
}

#[test]
fn both_ends_begin_with_numbers_of_ours_that_go_on_with_time() {
    let mut bed = TestBed::new(Faults::default(), 1);
    let listener = listening(&mut bed, 80);
    let mut last: Option<([u32; 2], u64)> = None;
    for _ in 0..3 {
        let now = bed.now;
        let numbers = first_numbers(&mut bed, listener);
        for (end, (is, ours)) in numbers.into_iter().enumerate() {
            // The clock of the stack that grants may have gone on by then.
            assert!(ours.wrapping_sub(is) < 100, "end {end}: {is} rather than {ours}");
        }
        let numbers = numbers.map(|(is, _)| is);
        if let Some((before, then)) = last {
            for (now_is, was) in numbers.into_iter().zip(before) {
                let ticks = (now - then) / 4000;
                let on = u64::from(now_is.wrapping_sub(was));
                // Once in four microseconds, seen when the stack last read the clock.
                assert!(on.abs_diff(ticks) < 10_000, "{on} rather than {ticks}");
            }
        }
        last = Some((numbers, now));
        bed.pass(1000);
    }
}

#[test]
fn numbers_of_one_connection_tell_nothing_of_another() {
    let mut sequence = Sequence::new(random, Epoch::default);
    let mut numbers = Vec::new();
    for host in 0..10 {
        for port in 0..100 {
            let to = at(Ipv4Addr::new(10, 0, 1, host), 40_000 + port);
            numbers.push(sequence.first(Instant::ZERO, at(A, 80), to));
            assert_eq!(numbers.last(), Some(&sequence.first(Instant::ZERO, at(A, 80), to)));
        }
    }
    // Each bit of the difference of neighbors is as often 1 as 0: in 999 it is 1 by 500, give or
    // take 16.
    for bit in 0..32 {
        let ones =
            numbers.windows(2).filter(|bed| bed[1].wrapping_sub(bed[0]) >> bit & 1 == 1).count();
        assert!((400..600).contains(&ones), "bit {bit} is 1 in {ones} of 999");
    }
}

/// The epoch of the copies.
static EPOCH: AtomicU64 = AtomicU64::new(0);

fn epoch() -> Epoch {
    Epoch { host: [EPOCH.load(Relaxed), 0, 0, 0, 0, 0, 0, 0], ..Epoch::default() }
}

#[test]
fn a_new_epoch_has_new_numbers() {
    // What changes is one word of the host's: an original that goes on after a snapshot has no
    // other generation.
    let mut sequence = Sequence::new(random, epoch);
    let mut first = || {
        let to = |port| at(B, port);
        [1, 2, 3].map(|port| sequence.first(Instant::ZERO, at(A, 80), to(port)))
    };
    let before = first();
    assert_eq!(first(), before);
    EPOCH.store(1, Relaxed);
    let after = first();
    assert!(before.iter().zip(after).all(|(before, after)| *before != after));
    assert_eq!(first(), after);
}

#[test]
fn ports_come_from_random_numbers_and_from_nothing_else() {
    // The same guest twice, with the same seed, as a clone's memory has it.
    let ports = || {
        let config: Config = config(A, 7);
        let mut bed = TestBed::new(Faults::default(), config.seed);
        let mut ports = vec![];
        for kind in [Kind::Datagram, Kind::Stream] {
            for _ in 0..20 {
                let socket = bed.a.socket(kind);
                bed.a.bind(socket, at(A, 0)).unwrap();
                ports.push(bed.a.local_address(socket).port());
                let connected = bed.a.socket(kind);
                let _in_progress = bed.a.connect(connected, at(B, 53));
                ports.push(bed.a.local_address(connected).port());
            }
        }
        ports
    };
    let (one, other) = (ports(), ports());
    let same = one.iter().zip(&other).filter(|(a, b)| a == b).count();
    assert!(same <= 1, "{same} of {} ports are the same", one.len());
    let next = one.windows(2).filter(|bed| bed[0].abs_diff(bed[1]) == 1).count();
    assert!(next <= 1, "{next} of {} ports follow the one before", one.len());
}

#[test]
fn a_syn_for_a_group_opens_nothing() {
    let mut bed = TestBed::new(Faults::default(), 1);
    let listener = listening(&mut bed, 80);
    let client = bed.a.socket(Kind::Stream);
    assert_eq!(bed.a.connect(client, at(B, 80)), Err(Error::InProgress));
    bed.until(|bed| (!bed.openings().is_empty()).then_some(()));
    for to in [Ipv4Addr::BROADCAST, Ipv4Addr::new(224, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 9)] {
        bed.readdress_oldest_frame(to);
        bed.step();
        assert_eq!(bed.b.socket_count(), 1, "{to}");
        assert_eq!(bed.b.accept(listener), Err(Error::WouldBlock));
        bed.until(|bed| (!bed.openings().is_empty()).then_some(()));
    }
}

#[test]
fn a_peer_that_has_forgotten_a_connection_can_use_its_port_again() {
    let mut bed = TestBed::new(Faults::default(), 1);
    let listener = listening(&mut bed, 80);
    let (from, to) = (at(A, 999), at(B, 80));
    let connect = |bed: &mut TestBed| {
        let client = bed.a.socket(Kind::Stream);
        bed.a.bind(client, from).unwrap();
        assert_eq!(bed.a.connect(client, to), Err(Error::InProgress));
        let server = bed.within(5000, |bed| bed.b.accept(listener).ok());
        (client, server.expect("in five seconds").0)
    };
    let (client, server) = connect(&mut bed);
    bed.until(|bed| bed.a.connect_result(client).ok());
    bed.a.close(client);
    bed.until(|bed| bed.b.ready(server).peer_closed.then_some(()));
    // All that is under way then is the last FIN, and its acknowledgement never comes.
    bed.a.remove_connection(client);
    bed.set_faults(Faults { lose: 100, ..Faults::default() });
    bed.b.close(server);
    bed.pass(10);
    bed.set_faults(Faults::default());
    connect(&mut bed);
}
