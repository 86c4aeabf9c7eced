//! Announces the guest's location to the network (rule R5), without waiting for the guest.

use super::backend::VNET_HEADER;
use std::net::{IpAddr, Ipv4Addr};

const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_RARP: u16 = 0x8035;
const BROADCAST: [u8; 6] = [0xff; 6];
/// Shortest Ethernet frame, without its checksum.
const SHORTEST: usize = 60;

/// The frames that announce a guest, each with an empty virtio-net header: gratuitous ARP as a
/// request and as a reply if the guest has a known IPv4 address (hosts differ in which they
/// accept), else a reverse ARP, which updates switches and names no addresses.
#[must_use]
pub fn announcements(mac: [u8; 6], ip: Option<IpAddr>) -> Vec<Vec<u8>> {
    match ip {
        Some(IpAddr::V4(ip)) => vec![
            frame(ETHERTYPE_ARP, 1, mac, ip, [0; 6], ip),
            frame(ETHERTYPE_ARP, 2, mac, ip, BROADCAST, ip),
        ],
        _ => vec![frame(ETHERTYPE_RARP, 3, mac, Ipv4Addr::UNSPECIFIED, mac, Ipv4Addr::UNSPECIFIED)],
    }
}

fn frame(
    ethertype: u16,
    operation: u16,
    mac: [u8; 6],
    ip: Ipv4Addr,
    target_mac: [u8; 6],
    target_ip: Ipv4Addr,
) -> Vec<u8> {
    let mut frame = vec![0; VNET_HEADER];
    frame.extend(BROADCAST);
    frame.extend(mac);
    frame.extend(ethertype.to_be_bytes());
    // Ethernet, IPv4, six and four bytes.
    frame.extend([0, 1, 8, 0, 6, 4]);
    frame.extend(operation.to_be_bytes());
    frame.extend(mac);
    frame.extend(ip.octets());
    frame.extend(target_mac);
    frame.extend(target_ip.octets());
    frame.resize(VNET_HEADER + SHORTEST, 0);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_address_is_announced_by_gratuitous_arp() {
        let mac = [2, 0, 0, 0, 0, 9];
        let frames = announcements(mac, Some("10.0.0.2".parse().unwrap()));
        let request = &frames[0][VNET_HEADER..];
        assert_eq!(&request[..6], &BROADCAST);
        assert_eq!(&request[6..12], &mac);
        assert_eq!(&request[12..14], &[8, 6]);
        assert_eq!(&request[20..22], &[0, 1]);
        assert_eq!(&request[22..28], &mac);
        assert_eq!(&request[28..32], &[10, 0, 0, 2]);
        assert_eq!(&request[38..42], &[10, 0, 0, 2]);
        assert_eq!(frames[1][VNET_HEADER + 21], 2);
        assert!(frames.iter().all(|f| f.len() == VNET_HEADER + 60));
    }

    #[test]
    fn a_guest_without_a_known_address_is_announced_too() {
        let frames = announcements([2; 6], None);
        assert_eq!(frames.len(), 1);
        assert_eq!(&frames[0][VNET_HEADER + 12..VNET_HEADER + 14], &[0x80, 0x35]);
    }
}
