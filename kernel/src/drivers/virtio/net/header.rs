//! The header before each frame (virtio 1.2, 5.1.6): checksums and segments.

/// Its length.
pub const LEN: usize = 12;

const NEEDS_CHECKSUM: u8 = 1;
const DATA_VALID: u8 = 2;
const SEGMENTS_NONE: u8 = 0;
const SEGMENTS_TCP4: u8 = 1;

const ETHERNET: usize = 14;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// Whether a received frame's TCP or UDP checksum needs no check: the device has verified it, or it
/// came from a sender on the same host and was never filled in.
pub fn checksum_good(header: &[u8; LEN]) -> bool {
    header[0] & (NEEDS_CHECKSUM | DATA_VALID) != 0
}

/// The header for `frame`, which is to be cut into TCP segments of `segment` bytes if that is
/// given. Where the checksum of its TCP or UDP is left to the device, this puts the sum of the
/// pseudo header in its place, as the standard asks.
pub fn for_frame(frame: &mut [u8], offload: bool, segment: Option<u16>) -> [u8; LEN] {
    let mut header = [0; LEN];
    if !offload {
        return header;
    }
    let Some((start, offset)) = put_pseudo_sum(frame) else { return header };
    header[0] = NEEDS_CHECKSUM;
    header[6..8].copy_from_slice(&(start as u16).to_le_bytes());
    header[8..10].copy_from_slice(&offset.to_le_bytes());
    header[1] = SEGMENTS_NONE;
    if let Some(segment) = segment
        && offset == TCP_CHECKSUM
        && let Some(data_offset) = frame.get(start + 12)
    {
        header[1] = SEGMENTS_TCP4;
        let headers = start + usize::from(data_offset >> 4) * 4;
        header[2..4].copy_from_slice(&(headers as u16).to_le_bytes());
        header[4..6].copy_from_slice(&segment.to_le_bytes());
    }
    header
}

/// Where in their headers TCP and UDP have their checksum.
const TCP_CHECKSUM: u16 = 16;
const UDP_CHECKSUM: u16 = 6;

/// For a whole IPv4 packet of TCP or UDP: where that begins, and where in it the checksum is, which
/// is then the pseudo header's.
fn put_pseudo_sum(frame: &mut [u8]) -> Option<(usize, u16)> {
    let ip = frame.get(ETHERNET..)?;
    let fragment = u16::from_be_bytes([*ip.get(6)?, *ip.get(7)?]) & 0x3fff != 0;
    if frame[12..14] != [0x08, 0x00] || ip[0] >> 4 != 4 || fragment {
        return None;
    }
    let header = usize::from(ip[0] & 0xf) * 4;
    let offset = match ip[9] {
        TCP => TCP_CHECKSUM,
        UDP => UDP_CHECKSUM,
        _ => return None,
    };
    let len = ip.len().checked_sub(header)?;
    let addresses = ip.get(12..20)?;
    let mut sum: u32 =
        addresses.chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
    sum += u32::from(ip[9]) + (len as u32 & 0xffff) + (len as u32 >> 16);
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let start = ETHERNET + header;
    let checksum_at = start + usize::from(offset);
    frame.get_mut(checksum_at..checksum_at + 2)?.copy_from_slice(&(sum as u16).to_be_bytes());
    Some((start, offset))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{vec, vec::Vec};
    use core::net::Ipv4Addr;
    use proptest::prelude::*;
    use smoltcp::{
        phy::ChecksumCapabilities,
        wire::{
            EthernetAddress, EthernetFrame, EthernetProtocol, IpAddress, IpProtocol, Ipv4Packet,
            Ipv4Repr, UdpPacket, UdpRepr,
        },
    };

    fn frame(data: &[u8], caps: &ChecksumCapabilities) -> Vec<u8> {
        let (src, dst) = (Ipv4Addr::new(10, 1, 2, 3), Ipv4Addr::new(192, 168, 200, 254));
        let udp = UdpRepr { src_port: 1, dst_port: 2 };
        let ip = Ipv4Repr {
            src_addr: src,
            dst_addr: dst,
            next_header: IpProtocol::Udp,
            payload_len: udp.header_len() + data.len(),
            hop_limit: 64,
        };
        let mut bytes = vec![0; 14 + ip.buffer_len() + udp.header_len() + data.len()];
        let mut ethernet = EthernetFrame::new_unchecked(&mut bytes[..]);
        ethernet.set_dst_addr(EthernetAddress::BROADCAST);
        ethernet.set_ethertype(EthernetProtocol::Ipv4);
        let mut packet = Ipv4Packet::new_unchecked(ethernet.payload_mut());
        ip.emit(&mut packet, &ChecksumCapabilities::default());
        udp.emit(
            &mut UdpPacket::new_unchecked(packet.payload_mut()),
            &IpAddress::from(src),
            &IpAddress::from(dst),
            data.len(),
            |to| to.copy_from_slice(data),
            caps,
        );
        bytes
    }

    /// What a device does with a partial checksum: sums from `start` to the end, and puts the
    /// complement at `offset`.
    fn complete(frame: &mut [u8], header: &[u8; LEN]) {
        let word = |at: usize| usize::from(u16::from_le_bytes([header[at], header[at + 1]]));
        let (start, offset) = (word(6), word(8));
        let mut sum: u32 = frame[start..]
            .chunks(2)
            .map(|w| u32::from(u16::from_be_bytes([w[0], *w.get(1).unwrap_or(&0)])))
            .sum();
        while sum >> 16 != 0 {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        let checksum_at = start + offset;
        frame[checksum_at..checksum_at + 2].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    }

    proptest! {
        #[test]
        fn a_partial_checksum_completes_to_the_whole_one(
            data in proptest::collection::vec(any::<u8>(), 0..300)
        ) {
            let whole = frame(&data, &ChecksumCapabilities::default());
            let mut partial = frame(&data, &ChecksumCapabilities::ignored());
            let header = for_frame(&mut partial, true, None);
            prop_assert_eq!(header[0], NEEDS_CHECKSUM);
            complete(&mut partial, &header);
            // 0 is written as its other form, 0xffff, by senders: both sums hold.
            if whole[40..42] != [0xff, 0xff] {
                prop_assert_eq!(partial, whole);
            }
        }

        #[test]
        fn any_frame_gets_a_header(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..100),
            ip: bool,
        ) {
            if ip && bytes.len() > 14 {
                (bytes[12], bytes[13], bytes[14]) = (8, 0, 0x45);
            }
            let _header = for_frame(&mut bytes, true, Some(1000));
        }
    }

    #[test]
    fn parts_of_datagrams_and_other_protocols_are_left_alone() {
        let mut part = frame(b"data", &ChecksumCapabilities::ignored());
        part[20] = 0x20; // More fragments.
        let before = part.clone();
        assert_eq!(for_frame(&mut part, true, None), [0; LEN]);
        assert_eq!(part, before);
        let mut arp = vec![0; 42];
        (arp[12], arp[13]) = (8, 6);
        assert_eq!(for_frame(&mut arp, true, None), [0; LEN]);
    }

    #[test]
    fn without_offload_nothing_is_asked_for() {
        let mut bytes = frame(b"data", &ChecksumCapabilities::default());
        assert_eq!(for_frame(&mut bytes, false, None), [0; LEN]);
    }
}
