//! Thousands of connections.

use super::wire::{B, Faults, TestBed, at};
use crate::net::{Error, calls::Kind};
use alloc::vec::Vec;
use std::time::{Duration, Instant};

/// Opens `n` connections, then lets one of them do a request and its answer many times; the
/// shortest time for one, which a busy host does not make longer.
fn round_trip_among(n: usize) -> Duration {
    let mut bed = TestBed::new(Faults::default(), 1);
    let listener = bed.b.socket(Kind::Stream);
    bed.b.bind(listener, at(B, 80)).unwrap();
    bed.b.listen(listener, 128).unwrap();
    let mut pairs = Vec::new();
    while pairs.len() < n {
        let client = bed.a.socket(Kind::Stream);
        assert_eq!(bed.a.connect(client, at(B, 80)), Err(Error::InProgress));
        let server = bed.until(|bed| bed.b.accept(listener).ok()).0;
        bed.until(|bed| bed.a.connect_result(client).ok());
        pairs.push((client, server));
    }
    let (client, server) = pairs[n / 2];
    const ROUNDS: u32 = 300;
    let mut byte = [0];
    let mut best = Duration::MAX;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        bed.a.send(client, b"?").unwrap();
        bed.until(|bed| bed.b.receive(server, &mut byte, false).ok());
        bed.b.send(server, b"!").unwrap();
        bed.until(|bed| bed.a.receive(client, &mut byte, false).ok());
        best = best.min(start.elapsed());
    }
    best
}

#[test]
fn a_packet_costs_the_same_among_two_thousand_connections() {
    let (few, many) = (round_trip_among(2), round_trip_among(2000));
    std::eprintln!("round trip: {few:?} among 2, {many:?} among 2000 connections");
    // A scan of all sockets would cost a hundred times as much.
    assert!(many < few * 8 + Duration::from_micros(50), "{few:?} and {many:?}");
}
