//! Addresses for servers that do not choose one by themselves.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::{Mutex, PoisonError},
};

/// An address on loopback that is free now, and that no other test of this process was given: until
/// somebody listens there, the same one may be found free again.
///
/// # Panics
/// If the host has none.
#[must_use]
pub fn address() -> SocketAddr {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    loop {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|l| l.local_addr());
        let address = free.expect("a free port");
        let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
        if given.insert(address.port()) {
            return address;
        }
    }
}
