//! TCP between two machines.

use super::wire::{A, B, Faults, World, at, noise};
use crate::net::{
    Error, Ready, SocketId,
    calls::{Kind, Shutdown},
};
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use proptest::prelude::*;

const WRITE: Shutdown = Shutdown { read: false, write: true };
const READ: Shutdown = Shutdown { read: true, write: false };

/// Sends all of `data` from `a`'s socket to `b`'s, which reads as it comes, and then closes for writing; what arrived.
fn transfer(world: &mut World, (from, to): (SocketId, SocketId), data: &[u8]) -> Vec<u8> {
    let mut sent = 0;
    let mut received = Vec::new();
    let mut buffer = [0; 4096];
    world.until(|w| {
        while sent < data.len() {
            match w.a.send(from, &data[sent..]) {
                Ok(n) => sent += n,
                Err(Error::WouldBlock) => break,
                Err(e) => panic!("after {sent} bytes: {e}"),
            }
            if sent == data.len() {
                w.a.shut_down(from, WRITE).unwrap();
            }
        }
        loop {
            match w.b.receive(to, &mut buffer, false) {
                Ok(0) => return Some(()),
                Ok(n) => received.extend_from_slice(&buffer[..n]),
                Err(Error::WouldBlock) => return None,
                Err(e) => panic!("after {} bytes: {e}", received.len()),
            }
        }
    });
    received
}

#[test]
fn bytes_arrive_and_then_the_end() {
    let mut world = World::new(Faults::default(), 1);
    let pair = world.connected(80);
    let data = noise(1_000_000);
    let start = world.now;
    assert!(transfer(&mut world, pair, &data) == data);
    assert!(world.now - start < 1_000_000_000, "{} ms", (world.now - start) / 1_000_000);
}

#[test]
fn addresses_are_known_at_both_ends() {
    let mut world = World::new(Faults::default(), 1);
    let (client, server) = world.connected(80);
    assert_eq!(world.a.peer_address(client), Ok(at(B, 80)));
    assert_eq!(world.b.local_address(server), at(B, 80));
    assert_eq!(world.b.peer_address(server), Ok(world.a.local_address(client)));
    assert_eq!(*world.a.local_address(client).ip(), A);
}

#[test]
fn a_closed_port_refuses() {
    let mut world = World::new(Faults::default(), 1);
    let client = world.a.socket(Kind::Stream);
    assert_eq!(world.a.connect(client, at(B, 81)), Err(Error::InProgress));
    assert_eq!(world.a.connect(client, at(B, 81)), Err(Error::Already));
    let error = world.until(|w| match w.a.connect_result(client) {
        Err(Error::InProgress) => None,
        other => Some(other),
    });
    assert_eq!(error, Err(Error::ConnectionRefused));
    // The same socket may try again.
    assert_eq!(world.a.connect(client, at(B, 81)), Err(Error::InProgress));
    assert_eq!(world.a.ready(client), Ready::default());
    world.until(|w| w.a.ready(client).hung_up.then_some(()));
    assert!(world.a.ready(client).error && world.a.ready(client).writable);
    assert_eq!(world.a.take_error(client), Some(Error::ConnectionRefused));
    assert_eq!(world.a.take_error(client), None);
}

#[test]
fn a_host_that_is_not_there_is_unreachable_soon() {
    let mut world = World::new(Faults::default(), 1);
    let client = world.a.socket(Kind::Stream);
    let nobody = at(Ipv4Addr::new(10, 0, 0, 77), 80);
    assert_eq!(world.a.connect(client, nobody), Err(Error::InProgress));
    let error = world
        .within(6000, |w| w.a.connect_result(client).err().filter(|&e| e != Error::InProgress));
    assert_eq!(error, Some(Error::HostUnreachable));
}

#[test]
fn a_silent_host_times_out() {
    let mut world = World::new(Faults::default(), 1);
    let pair = world.connected(80); // Neighbors know each other.
    world.a.close(pair.0);
    world.set_faults(Faults { lose: 100, ..Faults::default() });
    let client = world.a.socket(Kind::Stream);
    assert_eq!(world.a.connect(client, at(B, 80)), Err(Error::InProgress));
    let error = world
        .within(200_000, |w| w.a.connect_result(client).err().filter(|&e| e != Error::InProgress));
    // The neighbor's entry may have run out meanwhile.
    assert!(matches!(error, Some(Error::TimedOut | Error::HostUnreachable)), "{error:?}");
}

#[test]
fn half_closed_goes_on_in_the_other_direction() {
    let mut world = World::new(Faults::default(), 1);
    let (client, server) = world.connected(80);
    world.a.send(client, b"question").unwrap();
    world.a.shut_down(client, WRITE).unwrap();
    assert_eq!(world.a.send(client, b"more"), Err(Error::BrokenPipe));
    let mut buffer = [0; 16];
    let n = world.until(|w| w.b.receive(server, &mut buffer, false).ok());
    assert_eq!(&buffer[..n], b"question");
    assert_eq!(world.until(|w| w.b.receive(server, &mut buffer, false).ok()), 0);
    assert!(world.b.ready(server).peer_closed && !world.b.ready(server).hung_up);
    world.pass(30_000);
    world.b.send(server, b"answer").unwrap();
    let n = world.until(|w| w.a.receive(client, &mut buffer, true).ok());
    assert_eq!(&buffer[..n], b"answer");
    assert_eq!(world.a.receive(client, &mut buffer, false), Ok(6));
}

#[test]
fn unread_data_resets() {
    let mut world = World::new(Faults::default(), 1);
    let (client, server) = world.connected(80);
    world.a.send(client, b"never read").unwrap();
    world.until(|w| w.b.ready(server).readable.then_some(()));
    world.b.close(server);
    let mut buffer = [0; 4];
    let error = world.until(|w| match w.a.receive(client, &mut buffer, false) {
        Err(Error::WouldBlock) => None,
        other => Some(other),
    });
    assert_eq!(error, Err(Error::ConnectionReset));
    assert_eq!(world.a.receive(client, &mut buffer, false), Ok(0));
    assert_eq!(world.a.send(client, b"x"), Err(Error::BrokenPipe));
    assert!(world.a.ready(client).hung_up);
}

#[test]
fn writing_to_a_closed_peer_fails_soon() {
    let mut world = World::new(Faults::default(), 1);
    let (client, server) = world.connected(80);
    world.b.close(server);
    let error = world.within(2000, |w| match w.a.send(client, b"anyone there?") {
        Ok(_) | Err(Error::WouldBlock) => None,
        Err(e) => Some(e),
    });
    assert!(matches!(error, Some(Error::BrokenPipe | Error::ConnectionReset)), "{error:?}");
}

#[test]
fn what_was_sent_arrives_after_close() {
    let mut world = World::new(Faults { lose: 5, ..Faults::default() }, 3);
    let (client, server) = world.connected(80);
    let data = noise(30_000);
    let sent = world.a.send(client, &data).unwrap();
    world.a.close(client);
    let mut received = Vec::new();
    let mut buffer = [0; 5000];
    world.until(|w| match w.b.receive(server, &mut buffer, false) {
        Ok(0) => Some(()),
        Ok(n) => {
            received.extend_from_slice(&buffer[..n]);
            None
        }
        Err(Error::WouldBlock) => None,
        Err(e) => panic!("{e}"),
    });
    assert!(received == data[..sent]);
}

#[test]
fn linger_of_zero_resets() {
    let mut world = World::new(Faults::default(), 1);
    let (client, server) = world.connected(80);
    world.a.set_options(client, |o| o.linger = Some(0));
    world.a.close(client);
    let error = world.until(|w| {
        w.b.receive(server, &mut [0; 4], false).err().filter(|&e| e != Error::WouldBlock)
    });
    assert_eq!(error, Error::ConnectionReset);
}

#[test]
fn a_socket_shut_for_reading_is_at_its_end() {
    let mut world = World::new(Faults::default(), 1);
    let (client, _server) = world.connected(80);
    assert_eq!(world.a.receive(client, &mut [0; 4], false), Err(Error::WouldBlock));
    world.a.shut_down(client, READ).unwrap();
    assert_eq!(world.a.receive(client, &mut [0; 4], false), Ok(0));
    assert!(world.a.ready(client).readable);
}

#[test]
fn a_full_backlog_keeps_others_waiting_and_not_out() {
    let mut world = World::new(Faults::default(), 1);
    let listener = world.b.socket(Kind::Stream);
    world.b.bind(listener, at(B, 80)).unwrap();
    world.b.listen(listener, 4).unwrap();
    let clients: Vec<_> = (0..10)
        .map(|_| {
            let client = world.a.socket(Kind::Stream);
            assert_eq!(world.a.connect(client, at(B, 80)), Err(Error::InProgress));
            client
        })
        .collect();
    world.pass(500);
    let open = |w: &mut World| clients.iter().filter(|&&c| w.a.connect_result(c).is_ok()).count();
    assert_eq!(open(&mut world), 4);
    let mut accepted = 0;
    world.until(|w| {
        while w.b.accept(listener).is_ok() {
            accepted += 1;
        }
        (accepted == 10).then_some(())
    });
    world.until(|w| (open(w) == 10).then_some(()));
}

#[test]
fn a_listener_that_closes_resets_what_waits() {
    let mut world = World::new(Faults::default(), 1);
    let listener = world.b.socket(Kind::Stream);
    world.b.bind(listener, at(B, 80)).unwrap();
    world.b.listen(listener, 4).unwrap();
    let client = world.a.socket(Kind::Stream);
    assert_eq!(world.a.connect(client, at(B, 80)), Err(Error::InProgress));
    world.until(|w| w.b.ready(listener).readable.then_some(()));
    world.until(|w| w.a.connect_result(client).ok());
    world.b.close(listener);
    let error = world.until(|w| {
        w.a.receive(client, &mut [0; 4], false).err().filter(|&e| e != Error::WouldBlock)
    });
    assert_eq!(error, Error::ConnectionReset);
    world.pass(100);
    assert_eq!(world.b.socket_count(), 0);
}

#[test]
fn nothing_is_left_of_what_was_closed() {
    let mut world = World::new(Faults { lose: 3, delay: 3, ..Faults::default() }, 5);
    for n in 0..20 {
        let (client, server) = world.connected(80);
        world.a.send(client, &noise(100 * n)).unwrap();
        if n % 2 == 0 {
            world.a.close(client);
            world.b.close(server);
        } else {
            world.b.close(server);
            world.a.close(client);
        }
    }
    world.pass(200_000);
    assert_eq!((world.a.socket_count(), world.b.socket_count()), (0, 0));
    let quiet = world.frames();
    world.pass(100_000);
    assert_eq!(world.frames(), quiet, "somebody still talks");
}

#[test]
fn an_orphan_whose_peer_never_closes_ends_by_itself() {
    let mut world = World::new(Faults::default(), 1);
    let (client, server) = world.connected(80);
    world.a.close(client);
    world.until(|w| w.b.ready(server).peer_closed.then_some(()));
    world.pass(50_000);
    assert_eq!(world.a.socket_count(), 1);
    world.pass(30_000);
    assert_eq!(world.a.socket_count(), 0);
}

#[test]
fn a_port_is_used_again_right_after_close() {
    let mut world = World::new(Faults::default(), 1);
    for _ in 0..3 {
        let client = world.a.socket(Kind::Stream);
        world.a.bind(client, at(A, 5000)).unwrap();
        let listener = world.b.socket(Kind::Stream);
        world.b.bind(listener, at(B, 80)).unwrap();
        world.b.listen(listener, 1).unwrap();
        assert_eq!(world.a.connect(client, at(B, 80)), Err(Error::InProgress));
        let server = world.until(|w| w.b.accept(listener).ok()).0;
        world.until(|w| w.a.connect_result(client).ok());
        // The server is in TIME-WAIT then, and the client comes back with the same port.
        world.b.close(server);
        world.until(|w| w.a.ready(client).peer_closed.then_some(()));
        world.a.close(client);
        world.b.close(listener);
        world.pass(10);
    }
}

#[test]
fn a_closed_window_opens_again() {
    let mut world = World::new(Faults::default(), 1);
    let (client, server) = world.connected(80);
    let data = noise(500_000);
    let mut sent = 0;
    // Nobody reads: the sender stops.
    while world.within(1000, |w| match w.a.send(client, &data[sent..]) {
        Ok(n) => {
            sent += n;
            Some(())
        }
        Err(_) => None,
    }) == Some(())
    {}
    assert!(sent < data.len());
    assert!(!world.a.ready(client).writable);
    world.pass(5000);
    let mut received = Vec::new();
    let mut buffer = [0; 10_000];
    world.until(|w| {
        while let Ok(n) = w.b.receive(server, &mut buffer, false) {
            received.extend_from_slice(&buffer[..n]);
        }
        if sent < data.len()
            && let Ok(n) = w.a.send(client, &data[sent..])
        {
            sent += n;
        }
        (received.len() == data.len()).then_some(())
    });
    assert!(received == data);
}

#[test]
fn a_device_without_room_delays_and_loses_nothing() {
    let mut world = World::with_room(Faults::default(), 1, 3);
    let pair = world.connected(80);
    let data = noise(300_000);
    assert!(transfer(&mut world, pair, &data) == data);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]
    #[test]
    fn bytes_arrive_in_order_whatever_the_wire_does(
        seed: u64, lose in 0_u8..12, double in 0_u8..12, delay in 0_u8..12, change in 0_u8..6, len in 1_usize..60_000,
    ) {
        let mut world = World::new(Faults { lose, double, delay, change }, seed);
        let pair = world.connected(80);
        let data = noise(len);
        prop_assert!(transfer(&mut world, pair, &data) == data);
    }
}

#[test]
fn a_lost_fin_is_sent_again_whatever_is_acknowledged_meanwhile() {
    // Found by the test above: three repeated acknowledgements while only the FIN is missing.
    let faults = Faults { lose: 5, double: 6, change: 4, ..Faults::default() };
    let mut world = World::new(faults, 3_734_498_287_973_225_936);
    let pair = world.connected(80);
    let data = noise(52_865);
    assert!(transfer(&mut world, pair, &data) == data);
}

/// Switches and neighbors may remember an earlier machine with the same addresses.
#[test]
fn a_new_machine_says_where_it_is() {
    let mut world = World::new(Faults::default(), 1);
    world.a.announce();
    let frame = world.oldest_frame().expect("a frame");
    let (mac, ip) = ([2, 0, 0, 0, 0, 1], A.octets());
    let mut expected = [0xff; 6].to_vec();
    expected.extend(mac);
    expected.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    expected.extend(mac);
    expected.extend(ip);
    expected.extend([0; 6]);
    expected.extend(ip);
    assert_eq!(frame, expected);
}
