//! A guest that talks to itself.

use super::wire::{A, End, Faults, TestBed, at, config, noise};
use crate::net::{
    Error,
    calls::{Kind, Shutdown},
    stack::{Config, Stack},
};
use alloc::vec::Vec;
use core::net::Ipv4Addr;

fn alone() -> Stack<End> {
    Stack::new(&Config { ip: None, ..config(A, 9) }, None, 0)
}

/// Polls as long as there is something to do at once.
fn poll_all(stack: &mut Stack<End>, now: u64) {
    while stack.poll(now) == Some(now) {}
}

#[test]
fn a_guest_without_network_reaches_itself() {
    let mut stack = alone();
    let listener = stack.socket(Kind::Stream);
    stack.bind(listener, at(Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    stack.listen(listener, 5).unwrap();
    let port = stack.local_address(listener).port();
    for ip in [Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 9, 8, 7), Ipv4Addr::UNSPECIFIED] {
        let client = stack.socket(Kind::Stream);
        assert_eq!(stack.connect(client, at(ip, port)), Err(Error::InProgress));
        poll_all(&mut stack, 0);
        assert_eq!(stack.connect_result(client), Ok(()));
        let (server, peer) = stack.accept(listener).unwrap();
        assert_eq!(peer, stack.local_address(client));
        stack.send(client, b"hello").unwrap();
        poll_all(&mut stack, 0);
        let mut buffer = [0; 9];
        assert_eq!(stack.receive(server, &mut buffer, false), Ok(5));
        stack.close(client);
        stack.close(server);
    }
    let client = stack.socket(Kind::Stream);
    assert_eq!(stack.connect(client, at(A, port)), Err(Error::NetworkUnreachable));
    assert_eq!(stack.connect(client, at(Ipv4Addr::LOCALHOST, 1)), Err(Error::InProgress));
    poll_all(&mut stack, 0);
    assert_eq!(stack.connect_result(client), Err(Error::ConnectionRefused));
}

#[test]
fn the_own_address_is_loopback() {
    let mut bed = TestBed::new(Faults::default(), 1);
    let a = bed.a.socket(Kind::Datagram);
    bed.a.bind(a, at(A, 7)).unwrap();
    bed.a.send_to(a, b"me", Some(at(A, 7))).unwrap();
    let (n, from) = bed.until(|bed| bed.a.receive_from(a, &mut [0; 9], false).ok());
    assert_eq!((n, from), (2, Some(at(A, 7))));
    assert_eq!(bed.frames(), 0, "it went by the wire");
}

#[test]
fn large_datagrams_and_refusals_stay_on_loopback() {
    let mut stack = alone();
    let (a, b) = (stack.socket(Kind::Datagram), stack.socket(Kind::Datagram));
    stack.bind(b, at(Ipv4Addr::LOCALHOST, 0)).unwrap();
    let to = stack.local_address(b);
    let data = noise(65_507);
    assert_eq!(stack.send_to(a, &data, Some(to)), Ok(data.len()));
    assert_eq!(stack.send_to(a, &noise(65_508), Some(to)), Err(Error::MessageSize));
    poll_all(&mut stack, 0);
    let mut buffer = alloc::vec![0; 70_000];
    assert_eq!(stack.receive_from(b, &mut buffer, true).map(|r| r.0), Ok(65_507));
    assert!(buffer[..65_507] == data);
    stack.close(b);
    stack.connect(a, to).unwrap();
    stack.send(a, b"anyone?").unwrap();
    poll_all(&mut stack, 0);
    assert_eq!(stack.take_error(a), Some(Error::ConnectionRefused));
}

#[test]
fn bulk_both_ways_between_two_sockets() {
    let mut stack = alone();
    let listener = stack.socket(Kind::Stream);
    stack.bind(listener, at(Ipv4Addr::LOCALHOST, 0)).unwrap();
    stack.listen(listener, 5).unwrap();
    let to = stack.local_address(listener);
    let client = stack.socket(Kind::Stream);
    assert_eq!(stack.connect(client, to), Err(Error::InProgress));
    poll_all(&mut stack, 0);
    let (server, _) = stack.accept(listener).unwrap();
    let data = noise(2_000_000);
    let mut sent = [0; 2];
    let mut received = [Vec::new(), Vec::new()];
    let mut buffer = [0; 10_000];
    let mut now = 0;
    while received.iter().any(|r| r.len() < data.len()) {
        for (n, from, to) in [(0, client, server), (1, server, client)] {
            while let Ok(len) = stack.send(from, &data[sent[n]..]) {
                sent[n] += len;
                if sent[n] == data.len() {
                    stack.shut_down(from, Shutdown { read: false, write: true }).unwrap();
                    break;
                }
            }
            while let Ok(len @ 1..) = stack.receive(to, &mut buffer, false) {
                received[n].extend_from_slice(&buffer[..len]);
            }
        }
        now += 1_000;
        stack.poll(now);
        assert!(now < 1_000_000_000, "{:?} of {}", received.map(|r| r.len()), data.len());
    }
    assert!(received.iter().all(|r| *r == data));
}

#[test]
fn only_own_addresses_can_be_bound() {
    let mut stack = alone();
    for kind in [Kind::Stream, Kind::Datagram] {
        let socket = stack.socket(kind);
        assert_eq!(stack.bind(socket, at(A, 80)), Err(Error::AddressNotAvailable));
        assert_eq!(stack.bind(socket, at(Ipv4Addr::LOCALHOST, 80)), Ok(()));
        assert_eq!(stack.bind(socket, at(Ipv4Addr::LOCALHOST, 81)), Err(Error::Invalid));
        let other = stack.socket(kind);
        assert_eq!(stack.bind(other, at(Ipv4Addr::UNSPECIFIED, 80)), Err(Error::AddressInUse));
        stack.close(socket);
        assert_eq!(stack.bind(other, at(Ipv4Addr::UNSPECIFIED, 80)), Ok(()));
    }
}

#[test]
fn closed_sockets_take_no_memory() {
    let mut stack = alone();
    let listener = stack.socket(Kind::Stream);
    stack.bind(listener, at(Ipv4Addr::LOCALHOST, 0)).unwrap();
    stack.listen(listener, 500).unwrap();
    let to = stack.local_address(listener);
    for n in 0..300 {
        let client = stack.socket(Kind::Stream);
        assert_eq!(stack.connect(client, to), Err(Error::InProgress));
        poll_all(&mut stack, 0);
        let server = stack.accept(listener).unwrap().0;
        stack.send(client, b"x").unwrap();
        poll_all(&mut stack, 0);
        assert_eq!(stack.receive(server, &mut [0], false), Ok(1));
        let (first, second) = if n % 2 == 0 { (client, server) } else { (server, client) };
        stack.close(first);
        poll_all(&mut stack, 0);
        stack.close(second);
        poll_all(&mut stack, 0);
        assert_eq!(
            stack.socket_count(),
            1,
            "nothing is lost inside the guest, so nothing is to be waited for"
        );
    }
    assert_eq!(stack.budget.used(), 0);
}

#[test]
fn without_memory_there_are_no_new_connections() {
    let few = Config { has_room: |n| n < 100_000, ..config(A, 9) };
    let mut stack: Stack<End> = Stack::new(&Config { ip: None, ..few }, None, 0);
    let listener = stack.socket(Kind::Stream);
    stack.bind(listener, at(Ipv4Addr::LOCALHOST, 0)).unwrap();
    stack.listen(listener, 5).unwrap();
    let to = stack.local_address(listener);
    let client = stack.socket(Kind::Stream);
    assert_eq!(stack.connect(client, to), Err(Error::NoMemory));
    stack.close(client);
    stack.close(listener);
}

#[test]
fn a_connection_within_the_guest_is_refused_without_memory_for_its_other_end() {
    let one_more = Config { has_room: |n| n < 400_000, ip: None, ..config(A, 9) };
    let mut stack: Stack<End> = Stack::new(&one_more, None, 0);
    let listener = stack.socket(Kind::Stream);
    stack.bind(listener, at(Ipv4Addr::LOCALHOST, 0)).unwrap();
    stack.listen(listener, 5).unwrap();
    let client = stack.socket(Kind::Stream);
    assert_eq!(stack.connect(client, stack.local_address(listener)), Err(Error::NoMemory));
    assert_eq!(stack.budget.used(), 0);
    stack.close(client);
    stack.close(listener);
}

#[test]
fn data_sent_to_itself_before_close_arrives() {
    for (len, count) in [(0, 1), (1, 10), (60_000, 1)] {
        let mut stack = alone();
        let receiver = stack.socket(Kind::Datagram);
        stack.bind(receiver, at(Ipv4Addr::LOCALHOST, 7)).unwrap();
        let sender = stack.socket(Kind::Datagram);
        for _ in 0..count {
            let to = Some(at(Ipv4Addr::LOCALHOST, 7));
            assert_eq!(stack.send_to(sender, &noise(len), to), Ok(len));
        }
        stack.close(sender);
        poll_all(&mut stack, 0);
        for _ in 0..count {
            assert_eq!(stack.receive(receiver, &mut [0; 60_000], false), Ok(len));
        }
        assert_eq!(stack.socket_count(), 1);
    }
}

#[test]
fn successive_connections_never_meet_what_is_left_of_one() {
    let mut stack = alone();
    let listener = stack.socket(Kind::Stream);
    stack.bind(listener, at(Ipv4Addr::LOCALHOST, 80)).unwrap();
    stack.listen(listener, 5).unwrap();
    let mut now = 0;
    // Of 28,232 ports: many are drawn twice.
    for n in 0..3000_u32 {
        now += 50_000;
        let client = stack.socket(Kind::Stream);
        let to = at(Ipv4Addr::LOCALHOST, 80);
        assert_eq!(stack.connect(client, to), Err(Error::InProgress));
        poll_all(&mut stack, now);
        assert_eq!(stack.connect_result(client), Ok(()), "connection {n}");
        let (server, _) = stack.accept(listener).unwrap();
        stack.send(client, &n.to_le_bytes()).unwrap();
        stack.shut_down(client, Shutdown { read: false, write: true }).unwrap();
        poll_all(&mut stack, now);
        assert_eq!(stack.receive(server, &mut [0; 9], false), Ok(4));
        stack.send(server, &n.to_le_bytes()).unwrap();
        stack.close(server);
        poll_all(&mut stack, now);
        assert_eq!(stack.receive(client, &mut [0; 9], false), Ok(4));
        stack.close(client);
    }
}
