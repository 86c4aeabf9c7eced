//! UDP between two hosts.

use super::wire::{A, B, Faults, TestBed, at, noise};
use crate::net::{
    Error, LinkId, SocketId,
    calls::{Kind, Shutdown},
};
use alloc::format;
use core::net::Ipv4Addr;

fn bound(bed: &mut TestBed) -> (SocketId, SocketId) {
    let (a, b) = (bed.a.socket(Kind::Datagram), bed.b.socket(Kind::Datagram));
    bed.a.bind(a, at(Ipv4Addr::UNSPECIFIED, 1000)).unwrap();
    bed.b.bind(b, at(B, 2000)).unwrap();
    (a, b)
}

#[test]
fn datagrams_arrive_whole_and_with_their_sender() {
    let mut bed = TestBed::new(Faults::default(), 1);
    let (a, b) = bound(&mut bed);
    for len in [0, 1, 1472, 1473, 9000, 16_000] {
        let data = noise(len);
        assert_eq!(bed.a.send_to(a, &data, Some(at(B, 2000))), Ok(len));
        let mut buffer = [0; 20_000];
        let (n, from) = bed.until(|bed| bed.b.receive_from(b, &mut buffer, false).ok());
        assert!(buffer[..n] == data, "{len} became {n}");
        assert_eq!(from, Some(at(A, 1000)));
    }
    assert_eq!(bed.a.send_to(a, &noise(20_000), Some(at(B, 2000))), Err(Error::MessageSize));
}

#[test]
fn a_burst_waits_for_the_neighbor_and_arrives_in_order() {
    let mut bed = TestBed::new(Faults::default(), 1);
    let (a, b) = bound(&mut bed);
    for n in 0..20 {
        bed.a.send_to(a, &[n], Some(at(B, 2000))).unwrap();
    }
    for n in 0..20 {
        let mut buffer = [0];
        bed.until(|bed| bed.b.receive_from(b, &mut buffer, false).ok());
        assert_eq!(buffer[0], n);
    }
}

#[test]
fn a_connected_socket_gets_the_error_of_a_closed_port() {
    let mut bed = TestBed::new(Faults::default(), 1);
    let (a, _) = bound(&mut bed);
    bed.a.connect(a, at(B, 2001)).unwrap();
    bed.a.send(a, b"x").unwrap();
    bed.until(|bed| bed.a.ready(a).error.then_some(()));
    assert_eq!(bed.a.receive(a, &mut [0], false), Err(Error::ConnectionRefused));
    assert_eq!(bed.a.receive(a, &mut [0], false), Err(Error::WouldBlock));
}

#[test]
fn a_connected_socket_receives_from_its_peer_only() {
    let mut bed = TestBed::new(Faults::default(), 1);
    let (a, b) = bound(&mut bed);
    let other = bed.b.socket(Kind::Datagram);
    bed.a.connect(a, at(B, 2000)).unwrap();
    bed.b.send_to(other, b"psst", Some(at(A, 1000))).unwrap();
    bed.b.send_to(b, b"hello", Some(at(A, 1000))).unwrap();
    let mut buffer = [0; 10];
    let n = bed.until(|bed| bed.a.receive(a, &mut buffer, false).ok());
    assert_eq!(&buffer[..n], b"hello");
}

#[test]
fn broadcasts_reach_all_bound_sockets() {
    let mut bed = TestBed::new(Faults::default(), 1);
    let (a, _) = bound(&mut bed);
    let listeners = [(); 2].map(|()| {
        let socket = bed.b.socket(Kind::Datagram);
        bed.b.set_options(socket, |o| o.reuse_address = true);
        bed.b.bind(socket, at(Ipv4Addr::UNSPECIFIED, 3000)).unwrap();
        socket
    });
    bed.a.send_to(a, b"all", Some(at(Ipv4Addr::BROADCAST, 3000))).unwrap();
    for listener in listeners {
        bed.until(|bed| bed.b.receive(listener, &mut [0; 3], false).ok());
    }
}

#[test]
fn a_missing_neighbor_is_reported_and_does_not_block() {
    let mut bed = TestBed::new(Faults::default(), 1);
    let (a, b) = bound(&mut bed);
    let missing = at(Ipv4Addr::new(10, 0, 0, 9), 9);
    bed.a.send_to(a, b"lost", Some(missing)).unwrap();
    let error = bed.until(|bed| bed.a.take_error(a));
    assert_eq!(error, Error::HostUnreachable);
    bed.a.send_to(a, b"found", Some(at(B, 2000))).unwrap();
    bed.until(|bed| bed.b.receive(b, &mut [0; 5], false).ok());
}

#[test]
fn unread_datagrams_are_bounded() {
    let mut bed = TestBed::new(Faults::default(), 1);
    let (a, b) = bound(&mut bed);
    let data = noise(1000);
    for _ in 0..1000 {
        bed.until(|bed| bed.a.send_to(a, &data, Some(at(B, 2000))).ok());
    }
    bed.pass(100);
    let mut kept = 0;
    while bed.b.receive_from(b, &mut [0; 2000], false).is_ok() {
        kept += 1;
    }
    assert!((100..150).contains(&kept), "{kept}");
}

/// A test bed where `a` may know its neighbor, and whose wire may be full.
fn closing(known: bool, room: usize, lose: u8) -> (TestBed, SocketId) {
    let mut bed = TestBed::with_room(Faults::default(), 1, room);
    let (a, b) = bound(&mut bed);
    if known {
        bed.a.send_to(a, b"who are you", Some(at(B, 2000))).unwrap();
        bed.until(|bed| bed.b.receive(b, &mut [0; 20], false).ok());
    }
    bed.a.close(a);
    bed.until(|bed| (bed.a.socket_count() == 0).then_some(()));
    bed.set_faults(Faults { lose, ..Faults::default() });
    (bed, b)
}

#[test]
fn datagrams_sent_before_close_leave() {
    for known in [false, true] {
        for room in [1, 256] {
            for (count, len) in [(1, 0), (1, 1), (10, 5), (30, 0), (20, 1472), (3, 9000)] {
                for shut in [false, true] {
                    let (mut bed, b) = closing(known, room, 0);
                    let case = format!("{known} {room} {count} {len} {shut}");
                    let a = bed.a.socket(Kind::Datagram);
                    bed.a.connect(a, at(B, 2000)).unwrap();
                    let data = noise(len);
                    let sent = (0..count).take_while(|_| bed.a.send(a, &data).is_ok()).count();
                    assert!(sent > 0, "{case}");
                    if shut {
                        let how = Shutdown { read: true, write: true };
                        bed.a.shut_down(a, how).unwrap();
                    }
                    let port = bed.a.local_address(a);
                    bed.a.close(a);
                    assert!(bed.a.unfinished(LinkId::Ethernet) > 0, "{case}");
                    // The port is free, and the next socket that takes it gets no error for what
                    // this one sent.
                    let next = bed.a.socket(Kind::Datagram);
                    bed.a.bind(next, port).unwrap();
                    for _ in 0..sent {
                        let mut buffer = [0; 10_000];
                        let n = bed.until(|bed| bed.b.receive(b, &mut buffer, false).ok());
                        assert_eq!(n, len, "{case}");
                    }
                    bed.pass(1);
                    assert_eq!(bed.a.unfinished(LinkId::Ethernet), 0, "{case}");
                    assert_eq!(bed.a.socket_count(), 1, "{case}: all but the new one are gone");
                    assert_eq!(bed.a.take_error(next), None, "{case}");
                }
            }
        }
    }
}

#[test]
fn a_waiting_empty_datagram_is_not_lost_to_a_larger_one() {
    let (mut bed, b) = closing(false, 256, 0);
    let a = bed.a.socket(Kind::Datagram);
    bed.a.send_to(a, &[], Some(at(B, 2000))).unwrap();
    // That needs a larger buffer than the one in which the other waits.
    let large = noise(9000);
    assert_eq!(bed.a.send_to(a, &large, Some(at(B, 2000))), Err(Error::WouldBlock));
    assert!(!bed.a.ready(a).writable);
    bed.until(|bed| bed.a.ready(a).writable.then_some(()));
    assert_eq!(bed.a.send_to(a, &large, Some(at(B, 2000))), Ok(9000));
    for len in [0, 9000] {
        let mut buffer = [0; 10_000];
        assert_eq!(bed.until(|bed| bed.b.receive(b, &mut buffer, false).ok()), len);
    }
}

#[test]
fn sockets_that_linger_are_few_and_end() {
    // The neighbor does not answer.
    let (mut bed, _) = closing(false, 256, 100);
    for _ in 0..1000 {
        let a = bed.a.socket(Kind::Datagram);
        bed.a.send_to(a, &noise(1000), Some(at(B, 2000))).unwrap();
        bed.a.close(a);
        assert!(bed.a.lingers());
        assert!(bed.a.socket_count() <= 64);
    }
    let gone = bed.within(5000, |bed| (bed.a.socket_count() == 0).then_some(()));
    assert!(gone.is_some(), "{} linger", bed.a.socket_count());
    assert!(!bed.a.lingers());
}

#[test]
fn a_guest_with_a_new_address_sends_nothing_from_its_old_one() {
    let (mut bed, b) = closing(false, 256, 0);
    let [open, closed] = [(); 2].map(|()| {
        let a = bed.a.socket(Kind::Datagram);
        bed.a.send_to(a, b"from the old one", Some(at(B, 2000))).unwrap();
        a
    });
    bed.a.close(closed);
    let new = Ipv4Addr::new(10, 0, 0, 7);
    bed.a.readdress([2, 0, 0, 0, 0, 7], Some((new, 24)), None);
    assert_eq!(bed.a.socket_count(), 1);
    bed.a.send_to(open, b"from the new one", Some(at(B, 2000))).unwrap();
    let mut buffer = [0; 20];
    let (_, from) = bed.until(|bed| bed.b.receive_from(b, &mut buffer, false).ok());
    assert_eq!(&buffer[..16], b"from the new one");
    assert_eq!(from.map(|from| *from.ip()), Some(new));
}
