//! Opens connections with initial sequence numbers of ours.
//!
//! smoltcp draws them itself, by a generator that is seeded when an interface is made, that cannot
//! be seeded again, and whose next number can be computed from a few that were seen. So an
//! interface is made for each opening, with the one seed that makes it draw our number. Nothing
//! else is left to it: the connection's packets go by its link's interface. Should smoltcp come to
//! draw otherwise, a test fails.

use alloc::vec::Vec;
use core::net::Ipv4Addr;
use smoltcp::{
    iface::{Config, Context, Interface, SocketSet},
    phy::{ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken},
    time::Instant,
    wire::{HardwareAddress, IpCidr, Ipv4Cidr},
};

/// smoltcp's generator: a multiplication and an addition, then a shift by 29 less the three highest
/// bits.
const MULTIPLIER: u64 = 0xbb2e_fcec_3c39_611d;
const ADDEND: u64 = 0x7590_ef39;
const SHIFT: u32 = 29;

/// See the module.
pub struct Opener {
    /// The interface in use, or none, and room for it: too large for a thread's stack.
    iface: Vec<Interface>,
}

impl Opener {
    /// Takes its memory now, so that a connection can be opened when there is none.
    pub fn new() -> Self {
        Self { iface: Vec::with_capacity(1) }
    }

    /// What smoltcp needs to connect, with the sequence number `first`.
    pub fn context(&mut self, first: u32, now: Instant) -> &mut Context {
        self.make(first, &mut Once { packet: None, mtu: MTU_LEAST }, now).context()
    }

    /// Gives the listening socket of `set` the SYN `packet`, which came for `local`, by a link of
    /// this `mtu`. Its answer begins with the sequence number `first`.
    pub fn accept(
        &mut self,
        first: u32,
        mtu: usize,
        packet: &[u8],
        local: Ipv4Addr,
        now: Instant,
        set: &mut SocketSet<'static>,
    ) {
        let mut once = Once { packet: Some(packet), mtu };
        let iface = self.make(first, &mut once, now);
        iface.update_ip_addrs(|addresses| {
            let own = IpCidr::Ipv4(Ipv4Cidr::new(local, 32));
            addresses.push(own).expect("the first address");
        });
        iface.poll_ingress_single(now, &mut once, set);
    }

    fn make(&mut self, first: u32, device: &mut Once<'_>, now: Instant) -> &mut Interface {
        self.iface.clear();
        // In place: half of it goes by way of the stack even so, 19 KiB.
        self.iface.resize_with(1, || {
            let mut config = Config::new(HardwareAddress::Ip);
            config.random_seed = seed_for(first);
            Interface::new(config, device, now)
        });
        &mut self.iface[0]
    }
}

/// The state of smoltcp's generator before the one in which it is in `state`.
const fn before(state: u64) -> u64 {
    // Newton's iteration doubles the bits that are right; any odd number is right in three.
    let mut inverse = MULTIPLIER;
    let mut round = 0;
    while round < 5 {
        inverse = inverse.wrapping_mul(2_u64.wrapping_sub(MULTIPLIER.wrapping_mul(inverse)));
        round += 1;
    }
    state.wrapping_sub(ADDEND).wrapping_mul(inverse)
}

const fn drawn(state: u64) -> u32 {
    (state >> (SHIFT - (state >> 61) as u32)) as u32
}

/// The seed with which an interface draws `first` after the number of its first IP packet, which is
/// not 0.
fn seed_for(first: u32) -> u64 {
    // With the three highest bits 0, the lowest 29 are free.
    let mut states = (0..1 << SHIFT).map(|low| u64::from(first) << SHIFT | low);
    let packet_number = |state| {
        let drawn = drawn(before(state));
        (drawn ^ drawn >> 16) as u16
    };
    let state = states.find(|state| packet_number(*state) != 0).unwrap_or_default();
    before(before(state))
}

/// The least MTU of IPv4: for a device by which nothing goes.
const MTU_LEAST: usize = 576;

/// A device that receives one packet, and sends nothing.
struct Once<'p> {
    packet: Option<&'p [u8]>,
    mtu: usize,
}

impl Device for Once<'_> {
    type RxToken<'a>
        = Packet<'a>
    where
        Self: 'a;
    type TxToken<'a>
        = Nowhere
    where
        Self: 'a;

    fn receive(&mut self, _: Instant) -> Option<(Packet<'_>, Nowhere)> {
        Some((Packet(self.packet.take()?), Nowhere))
    }

    fn transmit(&mut self, _: Instant) -> Option<Nowhere> {
        None
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
        // They were checked when the packet was taken from its link.
        capabilities.checksum = ChecksumCapabilities::ignored();
        capabilities
    }
}

struct Packet<'p>(&'p [u8]);

impl RxToken for Packet<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

/// A socket that listens answers nothing to a SYN at once; what else smoltcp may send is not for
/// the peer.
struct Nowhere;

impl TxToken for Nowhere {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        f(&mut alloc::vec![0; len])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_generator_draws_what_it_is_seeded_for(first: u32) {
            let next = |state: u64| state.wrapping_mul(MULTIPLIER).wrapping_add(ADDEND);
            prop_assert_eq!(drawn(next(next(seed_for(first)))), first);
        }
    }
}
