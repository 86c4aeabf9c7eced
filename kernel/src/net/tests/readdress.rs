//! A guest that gets another address.

use super::wire::{A, B, Faults, TestBed, at};
use crate::net::{Error, calls::Kind};
use core::net::Ipv4Addr;

const C: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 33);
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 33];

#[test]
fn a_guest_with_a_new_address_drops_its_connections_in_silence() {
    let mut bed = TestBed::new(Faults::default(), 1);
    let (client, server) = bed.connected(80);
    let waiting = bed.b.socket(Kind::Stream);
    bed.b.bind(waiting, at(Ipv4Addr::UNSPECIFIED, 81)).unwrap();
    bed.b.listen(waiting, 16).unwrap();
    let other = bed.a.socket(Kind::Stream);
    assert_eq!(bed.a.connect(other, at(B, 81)), Err(Error::InProgress));
    bed.until(|bed| bed.a.connect_result(other).ok());
    bed.until(|bed| bed.b.ready(waiting).readable.then_some(()));
    bed.a.send(client, b"sent to the one it was").unwrap();
    bed.b.send(server, b"and not sent any more").unwrap();

    bed.b.readdress(MAC, Some((C, 24)), None);
    let mut buffer = [0; 64];
    assert_eq!(bed.b.receive(server, &mut buffer, false), Err(Error::ConnectionReset));
    assert_eq!(bed.b.accept(waiting), Err(Error::WouldBlock), "nor those that waited");
    bed.b.close(server);
    // Its peer is sent nothing: it is connected to the original.
    let heard = bed.within(2000, |bed| match bed.a.receive(client, &mut buffer, false) {
        Err(Error::WouldBlock) => None,
        other => Some(other),
    });
    assert_eq!(heard, None);
    assert!(bed.a.peer_address(client).is_ok());

    // It receives at its new address, and sends from it.
    let fresh = bed.a.socket(Kind::Stream);
    assert_eq!(bed.a.connect(fresh, at(C, 81)), Err(Error::InProgress));
    let (accepted, _) = bed.until(|bed| bed.b.accept(waiting).ok());
    assert_eq!(*bed.b.local_address(accepted).ip(), C);
    bed.until(|bed| bed.a.connect_result(fresh).ok());
}

#[test]
fn the_same_address_keeps_connections() {
    let mut bed = TestBed::new(Faults::default(), 1);
    let (client, server) = bed.connected(80);
    bed.b.readdress([2, 0, 0, 0, 0, 9], Some((B, 24)), Some(A));
    bed.b.send(server, b"x").unwrap();
    let mut buffer = [0; 8];
    let got = bed.until(|bed| bed.a.receive(client, &mut buffer, false).ok());
    assert_eq!(got, 1);
}
