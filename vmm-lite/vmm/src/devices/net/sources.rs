//! Checks that a frame of the guest's has the guest as its source: the rest of the network relies
//! on that.
//!
//! A guest that may send under other addresses can take over its neighbours' connections, and one
//! that speaks other protocols the bridge's own (spanning tree, VLAN tags, IPv6 router
//! advertisements).

use super::backend::VNET_HEADER;
use std::net::{IpAddr, Ipv4Addr};

/// How many bytes of a packet are inspected, its virtio-net header included: up to the end of ARP's
/// target.
pub(super) const LOOKED_AT: usize = VNET_HEADER + 42;

const IPV4: [u8; 2] = [0x08, 0x00];
const ARP: [u8; 2] = [0x08, 0x06];
const RARP: [u8; 2] = [0x80, 0x35];

/// The addresses that a guest may use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Own {
    mac: [u8; 6],
    ip: Option<Ipv4Addr>,
}

impl Own {
    /// The guest's Ethernet address, and its IPv4 address; a guest without an assigned one may use
    /// any.
    #[must_use]
    pub fn new(mac: [u8; 6], ip: Option<IpAddr>) -> Self {
        let ip = match ip {
            Some(IpAddr::V4(ip)) => Some(ip),
            _ => None,
        };
        Self { mac, ip }
    }

    /// Whether a packet that begins with `packet` has these addresses as its source.
    pub(super) fn sent(&self, packet: &[u8]) -> bool {
        let Some(frame) = packet.get(VNET_HEADER..) else { return false };
        let Some((source, kind, content)) = parts(frame) else { return false };
        source == self.mac
            && match kind {
                IPV4 => content.get(12..16).is_some_and(|ip| self.is_ip(ip)),
                // Ethernet and IPv4 only. A probe (RFC 5227) has no address yet.
                ARP => {
                    content.get(..6) == Some(&[0, 1, 8, 0, 6, 4])
                        && content.get(8..14) == Some(&self.mac)
                        && content.get(14..18).is_some_and(|ip| ip == [0; 4] || self.is_ip(ip))
                }
                RARP => content.get(8..14) == Some(&self.mac),
                _ => false,
            }
    }

    fn is_ip(&self, ip: &[u8]) -> bool {
        self.ip.is_none_or(|own| own.octets() == ip)
    }
}

/// Source address, protocol and content of an Ethernet frame.
fn parts(frame: &[u8]) -> Option<([u8; 6], [u8; 2], &[u8])> {
    let (addresses, rest) = frame.split_at_checked(12)?;
    let (kind, content) = rest.split_first_chunk()?;
    Some((addresses[6..].try_into().ok()?, *kind, content))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::net::arp::announcements;
    use proptest::prelude::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];
    const IP: [u8; 4] = [10, 0, 0, 2];

    fn own() -> Own {
        Own::new(MAC, Some(Ipv4Addr::from(IP).into()))
    }

    fn ipv4(mac: [u8; 6], ip: [u8; 4]) -> Vec<u8> {
        let mut packet = vec![0; VNET_HEADER + 6];
        packet.extend(mac);
        packet.extend(IPV4);
        packet.extend([0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0]);
        packet.extend(ip);
        packet.extend([10, 0, 0, 1, 0, 7, 0, 7, 0, 8, 0, 0]);
        packet
    }

    #[test]
    fn own_packets_pass() {
        assert!(own().sent(&ipv4(MAC, IP)));
        for ip in [Some(IpAddr::from(IP)), None] {
            for frame in announcements(MAC, ip) {
                assert!(own().sent(&frame), "{frame:?}");
            }
        }
        let mut probe = announcements(MAC, Some(IpAddr::from(IP))).remove(0);
        probe[VNET_HEADER + 28..VNET_HEADER + 32].fill(0);
        assert!(own().sent(&probe));
        assert!(Own::new(MAC, None).sent(&ipv4(MAC, [10, 0, 0, 7])));
    }

    fn kind(frame: &[u8]) -> [u8; 2] {
        [frame[VNET_HEADER + 12], frame[VNET_HEADER + 13]]
    }

    /// Which bytes of a frame state its source or its type.
    fn telling(frame: &[u8]) -> Vec<usize> {
        let content: &[usize] = match kind(frame) {
            ARP => &[0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17],
            RARP => &[8, 9, 10, 11, 12, 13],
            _ => &[12, 13, 14, 15],
        };
        (6..14).chain(content.iter().map(|at| 14 + at)).map(|at| VNET_HEADER + at).collect()
    }

    #[test]
    fn a_packet_with_another_source_does_not_pass() {
        let mut frames = vec![ipv4(MAC, IP)];
        frames.extend(announcements(MAC, Some(IpAddr::from(IP))));
        frames.extend(announcements(MAC, None));
        for frame in frames {
            for at in telling(&frame) {
                for bit in 0..8 {
                    let mut forged = frame.clone();
                    forged[at] ^= 1 << bit;
                    assert!(!own().sent(&forged), "byte {at} of {frame:?}");
                }
            }
            let last = telling(&frame).into_iter().max().unwrap();
            for len in 0..=last {
                assert!(!own().sent(&frame[..len]), "{len} bytes of {frame:?}");
            }
        }
        assert!(!Own::new(MAC, None).sent(&ipv4([2, 0, 0, 0, 0, 8], IP)));
    }

    proptest! {
        #[test]
        fn passing_packets_have_own_address(packet in prop::collection::vec(any::<u8>(), 0..80)) {
            if own().sent(&packet) {
                prop_assert_eq!(&packet[VNET_HEADER + 6..VNET_HEADER + 12], &MAC);
            }
        }
    }
}
