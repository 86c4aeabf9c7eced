//! Which addresses and ports are taken, and by which sockets.

use super::{Error, SocketId};
use alloc::vec::Vec;
use core::net::{Ipv4Addr, SocketAddrV4};
use foldhash::quality::FixedState;
use hashbrown::HashMap;

/// Ports given to sockets that ask for none in particular.
const EPHEMERAL: core::ops::RangeInclusive<u16> = 32_768..=60_999;
/// How often a port is drawn before the search goes on in order.
const DRAWS: usize = 64;

/// A socket that has been bound.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    /// Which.
    pub id: SocketId,
    /// Its address; unspecified for all addresses.
    pub address: Ipv4Addr,
    /// It may share its port with others that allow it too.
    pub reuse: bool,
    /// It accepts connections: then it does not share.
    pub listens: bool,
}

/// The ports of one protocol.
#[derive(Debug)]
pub struct Ports {
    bound: HashMap<u16, Vec<Bound>, FixedState>,
    random: fn(&mut [u8]),
}

fn overlap(a: Ipv4Addr, b: Ipv4Addr) -> bool {
    a == b || a.is_unspecified() || b.is_unspecified()
}

impl Ports {
    /// All free. Ephemeral ports come from `random`, the places in the table from `seed`.
    pub fn new(seed: u64, random: fn(&mut [u8])) -> Self {
        Self { bound: HashMap::with_hasher(FixedState::with_seed(seed)), random }
    }

    /// Takes `address` for `id`, or any free port if its port is 0; the port.
    ///
    /// # Errors
    /// [`Error::AddressInUse`].
    pub fn bind(&mut self, id: SocketId, address: SocketAddrV4, reuse: bool) -> Result<u16, Error> {
        let port = match address.port() {
            0 => self.ephemeral(|_| true)?,
            port => port,
        };
        let entry = Bound { id, address: *address.ip(), reuse, listens: false };
        let taken = self.bound.entry(port).or_default();
        if taken
            .iter()
            .any(|b| overlap(b.address, entry.address) && (b.listens || !(b.reuse && reuse)))
        {
            return Err(Error::AddressInUse);
        }
        taken.push(entry);
        Ok(port)
    }

    /// A port that no socket is bound to and that `free` agrees to, hard to guess (RFC 6056): each
    /// try is drawn anew. Where nearly all are taken, the search goes on in order from the last one
    /// drawn.
    ///
    /// # Errors
    /// [`Error::AddressInUse`] when there is none.
    pub fn ephemeral(&mut self, free: impl Fn(u16) -> bool) -> Result<u16, Error> {
        let fits = |port: &u16| !self.bound.contains_key(port) && free(*port);
        let mut drawn = self.draw();
        for _ in 0..DRAWS {
            if fits(&drawn) {
                return Ok(drawn);
            }
            drawn = self.draw();
        }
        let mut others = (drawn..=*EPHEMERAL.end()).chain(*EPHEMERAL.start()..drawn);
        others.find(fits).ok_or(Error::AddressInUse)
    }

    fn draw(&self) -> u16 {
        let mut bytes = [0; 8];
        (self.random)(&mut bytes);
        let span = u64::from(EPHEMERAL.end() - EPHEMERAL.start()) + 1;
        // Of 2^64 values: that some ports come once more often does not show.
        EPHEMERAL.start() + (u64::from_ne_bytes(bytes) % span) as u16
    }

    /// Unbinds `id` from `port`.
    pub fn release(&mut self, id: SocketId, port: u16) {
        if let Some(taken) = self.bound.get_mut(&port) {
            taken.retain(|b| b.id != id);
            if taken.is_empty() {
                self.bound.remove(&port);
            }
        }
    }

    /// From now on `id` listens at `port`, to which it is bound.
    ///
    /// # Errors
    /// [`Error::AddressInUse`] when another listens there already.
    pub fn listen(&mut self, id: SocketId, port: u16) -> Result<(), Error> {
        let taken = self.bound.get_mut(&port).ok_or(Error::Invalid)?;
        let address = taken.iter().find(|b| b.id == id).ok_or(Error::Invalid)?.address;
        if taken.iter().any(|b| b.id != id && b.listens && overlap(b.address, address)) {
            return Err(Error::AddressInUse);
        }
        taken.iter_mut().filter(|b| b.id == id).for_each(|b| b.listens = true);
        Ok(())
    }

    /// The sockets that are bound to `port`.
    pub fn at(&self, port: u16) -> &[Bound] {
        self.bound.get(&port).map_or(&[], |b| b)
    }

    /// The socket that listens at `to`: the one bound to just this address, before one bound to
    /// all.
    pub fn listener(&self, to: SocketAddrV4) -> Option<SocketId> {
        let at = self.at(to.port());
        let at = |address: Ipv4Addr| at.iter().find(|b| b.listens && b.address == address);
        Some(at(*to.ip()).or_else(|| at(Ipv4Addr::UNSPECIFIED))?.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::tests::wire::random;

    const HERE: Ipv4Addr = Ipv4Addr::LOCALHOST;
    const ANY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

    fn at(ip: Ipv4Addr, port: u16) -> SocketAddrV4 {
        SocketAddrV4::new(ip, port)
    }

    #[test]
    fn an_address_is_taken_once() {
        let mut ports = Ports::new(1, random);
        assert_eq!(ports.bind(SocketId(0), at(HERE, 80), false), Ok(80));
        assert_eq!(ports.bind(SocketId(1), at(ANY, 80), false), Err(Error::AddressInUse));
        assert_eq!(ports.bind(SocketId(1), at(Ipv4Addr::new(10, 0, 0, 2), 80), false), Ok(80));
        ports.release(SocketId(0), 80);
        ports.release(SocketId(1), 80);
        assert_eq!(ports.bind(SocketId(1), at(ANY, 80), false), Ok(80));
    }

    #[test]
    fn a_listener_does_not_share_its_port() {
        let mut ports = Ports::new(1, random);
        for n in 0..3 {
            assert_eq!(ports.bind(SocketId(n), at(HERE, 80), true), Ok(80));
        }
        assert_eq!(ports.listen(SocketId(0), 80), Ok(()));
        assert_eq!(ports.listen(SocketId(1), 80), Err(Error::AddressInUse));
        assert_eq!(ports.bind(SocketId(3), at(HERE, 80), true), Err(Error::AddressInUse));
    }

    #[test]
    fn the_more_specific_listener_accepts() {
        let mut ports = Ports::new(1, random);
        for (n, ip) in [(0, ANY), (1, HERE)] {
            ports.bind(SocketId(n), at(ip, 80), true).unwrap();
        }
        for n in [1, 0] {
            // Both may listen: an unspecified address overlaps, but here they were bound with reuse
            // before.
            let _either = ports.listen(SocketId(n), 80);
        }
        assert_eq!(ports.listener(at(HERE, 80)), Some(SocketId(1)));
        assert_eq!(ports.listener(at(HERE, 81)), None);
    }

    #[test]
    fn ephemeral_ports_run_out_and_come_back() {
        let mut ports = Ports::new(77, random);
        let mut n = 0;
        while let Ok(port) = ports.bind(SocketId(n), at(ANY, 0), false) {
            assert!(EPHEMERAL.contains(&port));
            n += 1;
        }
        assert_eq!(n as usize, EPHEMERAL.len());
        ports.release(SocketId(5), 40_000);
        let freed = ports.bound.iter().find(|(_, b)| b[0].id == SocketId(9)).map(|(&p, _)| p);
        ports.release(SocketId(9), freed.unwrap());
        assert_eq!(ports.bind(SocketId(9), at(ANY, 0), false).ok(), freed);
    }

    #[test]
    fn ephemeral_ports_are_all_over_the_range() {
        let ports: Vec<u16> =
            (0..1000).map(|_| Ports::new(1, random).ephemeral(|_| true).unwrap()).collect();
        let near = ports.windows(2).filter(|w| w[0].abs_diff(w[1]) < 100).count();
        // 200 of 28,232 each: 7 of 1,000 are expected.
        assert!(near < 40, "{near} of 1000 are near the one before");
        let low = ports.iter().filter(|&&port| port < 46_884).count();
        assert!((400..600).contains(&low), "{low} of 1000 in the lower half");
    }
}
