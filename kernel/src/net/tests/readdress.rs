//! A machine that becomes another.

use super::wire::{A, B, Faults, World, at};
use crate::net::{Error, calls::Kind};
use core::net::Ipv4Addr;

const C: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 33);
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 33];

#[test]
fn a_machine_with_a_new_address_gives_up_its_connections_in_silence() {
    let mut world = World::new(Faults::default(), 1);
    let (client, server) = world.connected(80);
    let waiting = world.b.socket(Kind::Stream);
    world.b.bind(waiting, at(Ipv4Addr::UNSPECIFIED, 81)).unwrap();
    world.b.listen(waiting, 16).unwrap();
    let other = world.a.socket(Kind::Stream);
    assert_eq!(world.a.connect(other, at(B, 81)), Err(Error::InProgress));
    world.until(|w| w.a.connect_result(other).ok());
    world.until(|w| w.b.ready(waiting).readable.then_some(()));
    world.a.send(client, b"sent to the one it was").unwrap();
    world.b.send(server, b"and not sent any more").unwrap();

    world.b.readdress(MAC, Some((C, 24)), None);
    let mut buffer = [0; 64];
    assert_eq!(world.b.receive(server, &mut buffer, false), Err(Error::ConnectionReset));
    assert_eq!(world.b.accept(waiting), Err(Error::WouldBlock), "nor those that waited");
    world.b.close(server);
    // Its peer hears nothing: it is somebody else's.
    let heard = world.within(2000, |w| match w.a.receive(client, &mut buffer, false) {
        Err(Error::WouldBlock) => None,
        other => Some(other),
    });
    assert_eq!(heard, None);
    assert!(world.a.peer_address(client).is_ok());

    // It answers at its new address, and speaks from it.
    let fresh = world.a.socket(Kind::Stream);
    assert_eq!(world.a.connect(fresh, at(C, 81)), Err(Error::InProgress));
    let (accepted, _) = world.until(|w| w.b.accept(waiting).ok());
    assert_eq!(*world.b.local_address(accepted).ip(), C);
    world.until(|w| w.a.connect_result(fresh).ok());
}

#[test]
fn the_same_address_keeps_what_there_is() {
    let mut world = World::new(Faults::default(), 1);
    let (client, server) = world.connected(80);
    world.b.readdress([2, 0, 0, 0, 0, 9], Some((B, 24)), Some(A));
    world.b.send(server, b"x").unwrap();
    let mut buffer = [0; 8];
    let got = world.until(|w| w.a.receive(client, &mut buffer, false).ok());
    assert_eq!(got, 1);
}
