//! UDP between two machines.

use super::wire::{A, B, Faults, World, at, noise};
use crate::net::{
    Error, LinkId, SocketId,
    calls::{Kind, Shutdown},
};
use alloc::format;
use core::net::Ipv4Addr;

fn bound(world: &mut World) -> (SocketId, SocketId) {
    let (a, b) = (world.a.socket(Kind::Datagram), world.b.socket(Kind::Datagram));
    world.a.bind(a, at(Ipv4Addr::UNSPECIFIED, 1000)).unwrap();
    world.b.bind(b, at(B, 2000)).unwrap();
    (a, b)
}

#[test]
fn datagrams_arrive_whole_and_say_from_whom() {
    let mut world = World::new(Faults::default(), 1);
    let (a, b) = bound(&mut world);
    for len in [0, 1, 1472, 1473, 9000, 16_000] {
        let data = noise(len);
        assert_eq!(world.a.send_to(a, &data, Some(at(B, 2000))), Ok(len));
        let mut buffer = [0; 20_000];
        let (n, from) = world.until(|w| w.b.receive_from(b, &mut buffer, false).ok());
        assert!(buffer[..n] == data, "{len} became {n}");
        assert_eq!(from, Some(at(A, 1000)));
    }
    assert_eq!(world.a.send_to(a, &noise(20_000), Some(at(B, 2000))), Err(Error::MessageSize));
}

#[test]
fn a_burst_waits_for_the_neighbor_and_arrives_in_order() {
    let mut world = World::new(Faults::default(), 1);
    let (a, b) = bound(&mut world);
    for n in 0..20 {
        world.a.send_to(a, &[n], Some(at(B, 2000))).unwrap();
    }
    for n in 0..20 {
        let mut buffer = [0];
        world.until(|w| w.b.receive_from(b, &mut buffer, false).ok());
        assert_eq!(buffer[0], n);
    }
}

#[test]
fn a_connected_socket_is_told_that_nobody_is_there() {
    let mut world = World::new(Faults::default(), 1);
    let (a, _) = bound(&mut world);
    world.a.connect(a, at(B, 2001)).unwrap();
    world.a.send(a, b"x").unwrap();
    world.until(|w| w.a.ready(a).error.then_some(()));
    assert_eq!(world.a.receive(a, &mut [0], false), Err(Error::ConnectionRefused));
    assert_eq!(world.a.receive(a, &mut [0], false), Err(Error::WouldBlock));
}

#[test]
fn a_connected_socket_hears_only_its_peer() {
    let mut world = World::new(Faults::default(), 1);
    let (a, b) = bound(&mut world);
    let stranger = world.b.socket(Kind::Datagram);
    world.a.connect(a, at(B, 2000)).unwrap();
    world.b.send_to(stranger, b"psst", Some(at(A, 1000))).unwrap();
    world.b.send_to(b, b"hello", Some(at(A, 1000))).unwrap();
    let mut buffer = [0; 10];
    let n = world.until(|w| w.a.receive(a, &mut buffer, false).ok());
    assert_eq!(&buffer[..n], b"hello");
}

#[test]
fn broadcasts_reach_all_who_listen() {
    let mut world = World::new(Faults::default(), 1);
    let (a, _) = bound(&mut world);
    let listeners = [(); 2].map(|()| {
        let socket = world.b.socket(Kind::Datagram);
        world.b.set_options(socket, |o| o.reuse_address = true);
        world.b.bind(socket, at(Ipv4Addr::UNSPECIFIED, 3000)).unwrap();
        socket
    });
    world.a.send_to(a, b"all", Some(at(Ipv4Addr::BROADCAST, 3000))).unwrap();
    for listener in listeners {
        world.until(|w| w.b.receive(listener, &mut [0; 3], false).ok());
    }
}

#[test]
fn a_neighbor_that_is_not_there_is_reported_and_does_not_block() {
    let mut world = World::new(Faults::default(), 1);
    let (a, b) = bound(&mut world);
    let nobody = at(Ipv4Addr::new(10, 0, 0, 9), 9);
    world.a.send_to(a, b"lost", Some(nobody)).unwrap();
    let error = world.until(|w| w.a.take_error(a));
    assert_eq!(error, Error::HostUnreachable);
    world.a.send_to(a, b"found", Some(at(B, 2000))).unwrap();
    world.until(|w| w.b.receive(b, &mut [0; 5], false).ok());
}

#[test]
fn what_nobody_reads_is_bounded() {
    let mut world = World::new(Faults::default(), 1);
    let (a, b) = bound(&mut world);
    let data = noise(1000);
    for _ in 0..1000 {
        world.until(|w| w.a.send_to(a, &data, Some(at(B, 2000))).ok());
    }
    world.pass(100);
    let mut kept = 0;
    while world.b.receive_from(b, &mut [0; 2000], false).is_ok() {
        kept += 1;
    }
    assert!((100..150).contains(&kept), "{kept}");
}

/// A world where `a` may know its neighbor, and whose wire may be full.
fn closing(known: bool, room: usize, lose: u8) -> (World, SocketId) {
    let mut world = World::with_room(Faults::default(), 1, room);
    let (a, b) = bound(&mut world);
    if known {
        world.a.send_to(a, b"who are you", Some(at(B, 2000))).unwrap();
        world.until(|w| w.b.receive(b, &mut [0; 20], false).ok());
    }
    world.a.close(a);
    world.until(|w| (w.a.socket_count() == 0).then_some(()));
    world.set_faults(Faults { lose, ..Faults::default() });
    (world, b)
}

#[test]
fn what_was_sent_leaves_though_its_socket_is_closed() {
    for known in [false, true] {
        for room in [1, 256] {
            for (count, len) in [(1, 0), (1, 1), (10, 5), (30, 0), (20, 1472), (3, 9000)] {
                for shut in [false, true] {
                    let (mut world, b) = closing(known, room, 0);
                    let case = format!("{known} {room} {count} {len} {shut}");
                    let a = world.a.socket(Kind::Datagram);
                    world.a.connect(a, at(B, 2000)).unwrap();
                    let data = noise(len);
                    let sent = (0..count).take_while(|_| world.a.send(a, &data).is_ok()).count();
                    assert!(sent > 0, "{case}");
                    if shut {
                        let how = Shutdown { read: true, write: true };
                        world.a.shut_down(a, how).unwrap();
                    }
                    let port = world.a.local_address(a);
                    world.a.close(a);
                    assert!(world.a.unfinished(LinkId::Ethernet) > 0, "{case}");
                    // The port is free, and who takes it next is not told of what this one sent.
                    let next = world.a.socket(Kind::Datagram);
                    world.a.bind(next, port).unwrap();
                    for _ in 0..sent {
                        let mut buffer = [0; 10_000];
                        let n = world.until(|w| w.b.receive(b, &mut buffer, false).ok());
                        assert_eq!(n, len, "{case}");
                    }
                    world.pass(1);
                    assert_eq!(world.a.unfinished(LinkId::Ethernet), 0, "{case}");
                    assert_eq!(world.a.socket_count(), 1, "{case}: all but the new one are gone");
                    assert_eq!(world.a.take_error(next), None, "{case}");
                }
            }
        }
    }
}

#[test]
fn an_empty_datagram_that_waits_is_not_lost_to_a_larger_one() {
    let (mut world, b) = closing(false, 256, 0);
    let a = world.a.socket(Kind::Datagram);
    world.a.send_to(a, &[], Some(at(B, 2000))).unwrap();
    // That needs a larger buffer than the one in which the other waits.
    let large = noise(9000);
    assert_eq!(world.a.send_to(a, &large, Some(at(B, 2000))), Err(Error::WouldBlock));
    assert!(!world.a.ready(a).writable);
    world.until(|w| w.a.ready(a).writable.then_some(()));
    assert_eq!(world.a.send_to(a, &large, Some(at(B, 2000))), Ok(9000));
    for len in [0, 9000] {
        let mut buffer = [0; 10_000];
        assert_eq!(world.until(|w| w.b.receive(b, &mut buffer, false).ok()), len);
    }
}

#[test]
fn sockets_that_linger_are_few_and_end() {
    // Nobody answers.
    let (mut world, _) = closing(false, 256, 100);
    for _ in 0..1000 {
        let a = world.a.socket(Kind::Datagram);
        world.a.send_to(a, &noise(1000), Some(at(B, 2000))).unwrap();
        world.a.close(a);
        assert!(world.a.lingers());
        assert!(world.a.socket_count() <= 64);
    }
    let gone = world.within(5000, |w| (w.a.socket_count() == 0).then_some(()));
    assert!(gone.is_some(), "{} linger", world.a.socket_count());
    assert!(!world.a.lingers());
}

#[test]
fn a_machine_with_a_new_address_sends_nothing_from_its_old_one() {
    let (mut world, b) = closing(false, 256, 0);
    let [open, closed] = [(); 2].map(|()| {
        let a = world.a.socket(Kind::Datagram);
        world.a.send_to(a, b"from the old one", Some(at(B, 2000))).unwrap();
        a
    });
    world.a.close(closed);
    let new = Ipv4Addr::new(10, 0, 0, 7);
    world.a.readdress([2, 0, 0, 0, 0, 7], Some((new, 24)), None);
    assert_eq!(world.a.socket_count(), 1);
    world.a.send_to(open, b"from the new one", Some(at(B, 2000))).unwrap();
    let mut buffer = [0; 20];
    let (_, from) = world.until(|w| w.b.receive_from(b, &mut buffer, false).ok());
    assert_eq!(&buffer[..16], b"from the new one");
    assert_eq!(from.map(|from| *from.ip()), Some(new));
}
