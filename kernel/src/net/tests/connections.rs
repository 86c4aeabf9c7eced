//! TCP between two hosts.

use super::wire::{A, B, Faults, TestBed, at, noise};
use crate::net::{
    Error, Ready, SocketId,
    calls::{Kind, Shutdown},
};
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use proptest::prelude::*;

const WRITE: Shutdown = Shutdown { read: false, write: true };
const READ: Shutdown = Shutdown { read: true, write: false };

/// Sends all of `data` from `a`'s socket to `b`'s, which reads as it comes, and then closes for
/// writing; what arrived.
fn transfer(bed: &mut TestBed, (from, to): (SocketId, SocketId), data: &[u8]) -> Vec<u8> {
    let mut sent = 0;
    let mut received = Vec::new();
    let mut buffer = [0; 4096];
    bed.until(|bed| {
        while sent < data.len() {
            match bed.a.send(from, &data[sent..]) {
                Ok(n) => sent += n,
                Err(Error::WouldBlock) => break,
                Err(e) => panic!("after {sent} bytes: {e}"),
            }
            if sent == data.len() {
                bed.a.shut_down(from, WRITE).unwrap();
            }
        }
        loop {
            match bed.b.receive(to, &mut buffer, false) {
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
    let mut bed = TestBed::new(Faults::default(), 1);
    let pair = bed.connected(80);
    let data = noise(1_000_000);
    let start = bed.now;
    assert!(transfer(&mut bed, pair, &data) == data);
    assert!(bed.now - start < 1_000_000_000, "{} ms", (bed.now - start) / 1_000_000);
}

#[test]
fn addresses_are_known_at_both_ends() {
    let mut bed = TestBed::new(Faults::default(), 1);
    let (client, server) = bed.connected(80);
    assert_eq!(bed.a.peer_address(client), Ok(at(B, 80)));
    assert_eq!(bed.b.local_address(server), at(B, 80));
    assert_eq!(bed.b.peer_address(server), Ok(bed.a.local_address(client)));
    assert_eq!(*bed.a.local_address(client).ip(), A);
}

#[test]
fn a_closed_port_refuses() {
    let mut bed = TestBed::new(Faults::default(), 1);
    let client = bed.a.socket(Kind::Stream);
    assert_eq!(bed.a.connect(client, at(B, 81)), Err(Error::InProgress));
    assert_eq!(bed.a.connect(client, at(B, 81)), Err(Error::Already));
    let error = bed.until(|bed| match bed.a.connect_result(client) {
        Err(Error::InProgress) => None,
        other => Some(other),
    });
    assert_eq!(error, Err(Error::ConnectionRefused));
    // The same socket may try again.
    assert_eq!(bed.a.connect(client, at(B, 81)), Err(Error::InProgress));
    assert_eq!(bed.a.ready(client), Ready::default());
    bed.until(|bed| bed.a.ready(client).hung_up.then_some(()));
    assert!(bed.a.ready(client).error && bed.a.ready(client).writable);
    assert_eq!(bed.a.take_error(client), Some(Error::ConnectionRefused));
    assert_eq!(bed.a.take_error(client), None);
}

#[test]
fn a_missing_host_is_reported_unreachable() {
    let mut bed = TestBed::new(Faults::default(), 1);
    let client = bed.a.socket(Kind::Stream);
    let missing = at(Ipv4Addr::new(10, 0, 0, 77), 80);
    assert_eq!(bed.a.connect(client, missing), Err(Error::InProgress));
    let error = bed
        .within(6000, |bed| bed.a.connect_result(client).err().filter(|&e| e != Error::InProgress));
    assert_eq!(error, Some(Error::HostUnreachable));
}

#[test]
fn a_silent_host_times_out() {
    let mut bed = TestBed::new(Faults::default(), 1);
    let pair = bed.connected(80); // Neighbors know each other.
    bed.a.close(pair.0);
    bed.set_faults(Faults { lose: 100, ..Faults::default() });
    let client = bed.a.socket(Kind::Stream);
    assert_eq!(bed.a.connect(client, at(B, 80)), Err(Error::InProgress));
    let error = bed.within(200_000, |bed| {
        bed.a.connect_result(client).err().filter(|&e| e != Error::InProgress)
    });
    // The neighbor's entry may have run out meanwhile.
    assert!(matches!(error, Some(Error::TimedOut | Error::HostUnreachable)), "{error:?}");
}

#[test]
fn half_closed_goes_on_in_the_other_direction() {
    let mut bed = TestBed::new(Faults::default(), 1);
    let (client, server) = bed.connected(80);
    bed.a.send(client, b"question").unwrap();
    bed.a.shut_down(client, WRITE).unwrap();
    assert_eq!(bed.a.send(client, b"more"), Err(Error::BrokenPipe));
    let mut buffer = [0; 16];
    let n = bed.until(|bed| bed.b.receive(server, &mut buffer, false).ok());
    assert_eq!(&buffer[..n], b"question");
    assert_eq!(bed.until(|bed| bed.b.receive(server, &mut buffer, false).ok()), 0);
    assert!(bed.b.ready(server).peer_closed && !bed.b.ready(server).hung_up);
    bed.pass(30_000);
    bed.b.send(server, b"answer").unwrap();
    let n = bed.until(|bed| bed.a.receive(client, &mut buffer, true).ok());
    assert_eq!(&buffer[..n], b"answer");
    assert_eq!(bed.a.receive(client, &mut buffer, false), Ok(6));
}

#[test]
fn unread_data_resets() {
    let mut bed = TestBed::new(Faults::default(), 1);
    let (client, server) = bed.connected(80);
    bed.a.send(client, b"never read").unwrap();
    bed.until(|bed| bed.b.ready(server).readable.then_some(()));
    bed.b.close(server);
    let mut buffer = [0; 4];
    let error = bed.until(|bed| match bed.a.receive(client, &mut buffer, false) {
        Err(Error::WouldBlock) => None,
        other => Some(other),
    });
    assert_eq!(error, Err(Error::ConnectionReset));
    assert_eq!(bed.a.receive(client, &mut buffer, false), Ok(0));
    assert_eq!(bed.a.send(client, b"x"), Err(Error::BrokenPipe));
    assert!(bed.a.ready(client).hung_up);
}

#[test]
fn writing_to_a_closed_peer_fails_soon() {
    let mut bed = TestBed::new(Faults::default(), 1);
    let (client, server) = bed.connected(80);
    bed.b.close(server);
    let error = bed.within(2000, |bed| match bed.a.send(client, b"anyone there?") {
        Ok(_) | Err(Error::WouldBlock) => None,
        Err(e) => Some(e),
    });
    assert!(matches!(error, Some(Error::BrokenPipe | Error::ConnectionReset)), "{error:?}");
}

#[test]
fn data_sent_before_close_arrives() {
    let mut bed = TestBed::new(Faults { lose: 5, ..Faults::default() }, 3);
    let (client, server) = bed.connected(80);
    let data = noise(30_000);
    let sent = bed.a.send(client, &data).unwrap();
    bed.a.close(client);
    let mut received = Vec::new();
    let mut buffer = [0; 5000];
    bed.until(|bed| match bed.b.receive(server, &mut buffer, false) {
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
    let mut bed = TestBed::new(Faults::default(), 1);
    let (client, server) = bed.connected(80);
    bed.a.set_options(client, |o| o.linger = Some(0));
    bed.a.close(client);
    let error = bed.until(|bed| {
        bed.b.receive(server, &mut [0; 4], false).err().filter(|&e| e != Error::WouldBlock)
    });
    assert_eq!(error, Error::ConnectionReset);
}

#[test]
fn a_socket_shut_for_reading_is_at_its_end() {
    let mut bed = TestBed::new(Faults::default(), 1);
    let (client, _server) = bed.connected(80);
    assert_eq!(bed.a.receive(client, &mut [0; 4], false), Err(Error::WouldBlock));
    bed.a.shut_down(client, READ).unwrap();
    assert_eq!(bed.a.receive(client, &mut [0; 4], false), Ok(0));
    assert!(bed.a.ready(client).readable);
}

#[test]
fn a_full_backlog_delays_connections() {
    let mut bed = TestBed::new(Faults::default(), 1);
    let listener = bed.b.socket(Kind::Stream);
    bed.b.bind(listener, at(B, 80)).unwrap();
    bed.b.listen(listener, 4).unwrap();
    let clients: Vec<_> = (0..10)
        .map(|_| {
            let client = bed.a.socket(Kind::Stream);
            assert_eq!(bed.a.connect(client, at(B, 80)), Err(Error::InProgress));
            client
        })
        .collect();
    bed.pass(500);
    let open =
        |bed: &mut TestBed| clients.iter().filter(|&&c| bed.a.connect_result(c).is_ok()).count();
    assert_eq!(open(&mut bed), 4);
    let mut accepted = 0;
    bed.until(|bed| {
        while bed.b.accept(listener).is_ok() {
            accepted += 1;
        }
        (accepted == 10).then_some(())
    });
    bed.until(|bed| (open(bed) == 10).then_some(()));
}

#[test]
fn a_closed_listener_resets_waiting_connections() {
    let mut bed = TestBed::new(Faults::default(), 1);
    let listener = bed.b.socket(Kind::Stream);
    bed.b.bind(listener, at(B, 80)).unwrap();
    bed.b.listen(listener, 4).unwrap();
    let client = bed.a.socket(Kind::Stream);
    assert_eq!(bed.a.connect(client, at(B, 80)), Err(Error::InProgress));
    bed.until(|bed| bed.b.ready(listener).readable.then_some(()));
    bed.until(|bed| bed.a.connect_result(client).ok());
    bed.b.close(listener);
    let error = bed.until(|bed| {
        bed.a.receive(client, &mut [0; 4], false).err().filter(|&e| e != Error::WouldBlock)
    });
    assert_eq!(error, Error::ConnectionReset);
    bed.pass(100);
    assert_eq!(bed.b.socket_count(), 0);
}

#[test]
fn closed_connections_leave_nothing_behind() {
    let mut bed = TestBed::new(Faults { lose: 3, delay: 3, ..Faults::default() }, 5);
    for n in 0..20 {
        let (client, server) = bed.connected(80);
        bed.a.send(client, &noise(100 * n)).unwrap();
        if n % 2 == 0 {
            bed.a.close(client);
            bed.b.close(server);
        } else {
            bed.b.close(server);
            bed.a.close(client);
        }
    }
    bed.pass(200_000);
    assert_eq!((bed.a.socket_count(), bed.b.socket_count()), (0, 0));
    let quiet = bed.frames();
    bed.pass(100_000);
    assert_eq!(bed.frames(), quiet, "frames are still sent");
}

#[test]
fn an_orphan_whose_peer_never_closes_ends_by_itself() {
    let mut bed = TestBed::new(Faults::default(), 1);
    let (client, server) = bed.connected(80);
    bed.a.close(client);
    bed.until(|bed| bed.b.ready(server).peer_closed.then_some(()));
    bed.pass(50_000);
    assert_eq!(bed.a.socket_count(), 1);
    bed.pass(30_000);
    assert_eq!(bed.a.socket_count(), 0);
}

#[test]
fn a_port_is_used_again_right_after_close() {
    let mut bed = TestBed::new(Faults::default(), 1);
    for _ in 0..3 {
        let client = bed.a.socket(Kind::Stream);
        bed.a.bind(client, at(A, 5000)).unwrap();
        let listener = bed.b.socket(Kind::Stream);
        bed.b.bind(listener, at(B, 80)).unwrap();
        bed.b.listen(listener, 1).unwrap();
        assert_eq!(bed.a.connect(client, at(B, 80)), Err(Error::InProgress));
        let server = bed.until(|bed| bed.b.accept(listener).ok()).0;
        bed.until(|bed| bed.a.connect_result(client).ok());
        // The server is in TIME-WAIT then, and the client comes back with the same port.
        bed.b.close(server);
        bed.until(|bed| bed.a.ready(client).peer_closed.then_some(()));
        bed.a.close(client);
        bed.b.close(listener);
        bed.pass(10);
    }
}

#[test]
fn a_closed_window_opens_again() {
    let mut bed = TestBed::new(Faults::default(), 1);
    let (client, server) = bed.connected(80);
    let data = noise(500_000);
    let mut sent = 0;
    // The receiver does not read: the sender stops.
    while bed.within(1000, |bed| match bed.a.send(client, &data[sent..]) {
        Ok(n) => {
            sent += n;
            Some(())
        }
        Err(_) => None,
    }) == Some(())
    {}
    assert!(sent < data.len());
    assert!(!bed.a.ready(client).writable);
    bed.pass(5000);
    let mut received = Vec::new();
    let mut buffer = [0; 10_000];
    bed.until(|bed| {
        while let Ok(n) = bed.b.receive(server, &mut buffer, false) {
            received.extend_from_slice(&buffer[..n]);
        }
        if sent < data.len()
            && let Ok(n) = bed.a.send(client, &data[sent..])
        {
            sent += n;
        }
        (received.len() == data.len()).then_some(())
    });
    assert!(received == data);
}

#[test]
fn a_device_without_room_delays_and_loses_nothing() {
    let mut bed = TestBed::with_room(Faults::default(), 1, 3);
    let pair = bed.connected(80);
    let data = noise(300_000);
    assert!(transfer(&mut bed, pair, &data) == data);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]
    #[test]
    fn bytes_arrive_in_order_whatever_the_wire_does(
        seed: u64,
        lose in 0_u8..12,
        double in 0_u8..12,
        delay in 0_u8..12,
        change in 0_u8..6,
        len in 1_usize..60_000,
    ) {
        let mut bed = TestBed::new(Faults { lose, double, delay, change }, seed);
        let pair = bed.connected(80);
        let data = noise(len);
        prop_assert!(transfer(&mut bed, pair, &data) == data);
    }
}

#[test]
fn a_lost_fin_is_sent_again_whatever_is_acknowledged_meanwhile() {
    // Found by the test above: three repeated acknowledgements while only the FIN is missing.
    let faults = Faults { lose: 5, double: 6, change: 4, ..Faults::default() };
    let mut bed = TestBed::new(faults, 3_734_498_287_973_225_936);
    let pair = bed.connected(80);
    let data = noise(52_865);
    assert!(transfer(&mut bed, pair, &data) == data);
}

/// Switches and neighbors may remember an earlier guest with the same addresses.
#[test]
fn a_new_guest_announces_its_address() {
    let mut bed = TestBed::new(Faults::default(), 1);
    bed.a.announce();
    let frame = bed.oldest_frame().expect("a frame");
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
