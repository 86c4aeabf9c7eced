//! Which socket a received frame is for, found without processing the frame.
//!
//! Frames come from unauthenticated peers: what is odd, short or wrong is [`Peek::Other`] and left
//! to smoltcp, which answers or drops it; a frame with a wrong TCP or UDP checksum is [`Peek::Bad`]
//! and dropped.

use core::net::{Ipv4Addr, SocketAddrV4};
use smoltcp::{
    phy::Medium,
    wire::{
        EthernetFrame, EthernetProtocol, Icmpv4DstUnreachable, Icmpv4Message, Icmpv4Packet,
        IpProtocol, Ipv4Packet, TcpPacket, TcpSeqNumber, UdpPacket,
    },
};

/// What a frame is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Peek {
    /// A TCP segment.
    Tcp {
        /// The sender.
        from: SocketAddrV4,
        /// The receiver.
        to: SocketAddrV4,
        /// It opens a connection: SYN, and neither ACK nor RST.
        opens: bool,
        /// What it acknowledges, if it does nothing else.
        only_acknowledges: Option<TcpSeqNumber>,
    },
    /// A whole UDP datagram.
    Udp {
        /// The sender.
        from: SocketAddrV4,
        /// The receiver.
        to: SocketAddrV4,
        /// Where in the frame its payload is.
        payload: (usize, usize),
    },
    /// One of our packets did not arrive.
    Unreachable {
        /// TCP or UDP.
        protocol: IpProtocol,
        /// Our end.
        local: SocketAddrV4,
        /// The receiver that it was for.
        remote: SocketAddrV4,
        /// No socket has the port; else there is no route.
        port: bool,
    },
    /// Part of a datagram.
    Fragment,
    /// An answer or a question about neighbors.
    Arp,
    /// A checksum is wrong.
    Bad,
    /// Anything else.
    Other,
}

/// Parses `frame`, which came by a link of kind `medium`. `checksum_good`: TCP and UDP checksums
/// need no check.
pub fn peek(frame: &[u8], medium: Medium, checksum_good: bool) -> Peek {
    let packet = match medium {
        Medium::Ethernet => {
            let Ok(ethernet) = EthernetFrame::new_checked(frame) else { return Peek::Other };
            match ethernet.ethertype() {
                EthernetProtocol::Ipv4 => &frame[EthernetFrame::<&[u8]>::header_len()..],
                EthernetProtocol::Arp => return Peek::Arp,
                _ => return Peek::Other,
            }
        }
        Medium::Ip => frame,
    };
    let Ok(ip) = Ipv4Packet::new_checked(packet) else { return Peek::Other };
    if ip.version() != 4 || !ip.verify_checksum() && medium == Medium::Ethernet {
        return Peek::Other;
    }
    if ip.more_frags() || ip.frag_offset() != 0 {
        return Peek::Fragment;
    }
    let (from, to, payload) = (ip.src_addr(), ip.dst_addr(), ip.payload());
    match ip.next_header() {
        IpProtocol::Tcp => tcp(from, to, payload, checksum_good),
        IpProtocol::Udp => {
            let start = frame.len() - packet.len() + usize::from(ip.header_len());
            udp(from, to, payload, start, checksum_good)
        }
        IpProtocol::Icmp => unreachable(payload, checksum_good).unwrap_or(Peek::Other),
        _ => Peek::Other,
    }
}

fn tcp(from: Ipv4Addr, to: Ipv4Addr, payload: &[u8], checksum_good: bool) -> Peek {
    let Ok(tcp) = TcpPacket::new_checked(payload) else { return Peek::Other };
    if !checksum_good && !tcp.verify_checksum(&from.into(), &to.into()) {
        return Peek::Bad;
    }
    Peek::Tcp {
        from: SocketAddrV4::new(from, tcp.src_port()),
        to: SocketAddrV4::new(to, tcp.dst_port()),
        opens: tcp.syn() && !tcp.ack() && !tcp.rst(),
        only_acknowledges: (tcp.ack() && tcp.segment_len() == 0 && !tcp.rst())
            .then(|| tcp.ack_number()),
    }
}

fn udp(from: Ipv4Addr, to: Ipv4Addr, payload: &[u8], start: usize, checksum_good: bool) -> Peek {
    let Ok(udp) = UdpPacket::new_checked(payload) else { return Peek::Other };
    // A checksum of zero means that there is none.
    if !checksum_good && udp.checksum() != 0 && !udp.verify_checksum(&from.into(), &to.into()) {
        return Peek::Bad;
    }
    const HEADER: usize = 8;
    Peek::Udp {
        from: SocketAddrV4::new(from, udp.src_port()),
        to: SocketAddrV4::new(to, udp.dst_port()),
        payload: (start + HEADER, start + usize::from(udp.len())),
    }
}

/// An ICMP message that one of our packets, of which it holds the beginning, could not be
/// delivered.
fn unreachable(payload: &[u8], checksum_good: bool) -> Option<Peek> {
    let icmp = Icmpv4Packet::new_checked(payload).ok()?;
    if icmp.msg_type() != Icmpv4Message::DstUnreachable
        || !(checksum_good || icmp.verify_checksum())
    {
        return None;
    }
    let port = match Icmpv4DstUnreachable::from(icmp.msg_code()) {
        Icmpv4DstUnreachable::PortUnreachable => true,
        Icmpv4DstUnreachable::NetUnreachable
        | Icmpv4DstUnreachable::HostUnreachable
        | Icmpv4DstUnreachable::NetProhibited
        | Icmpv4DstUnreachable::HostProhibited
        | Icmpv4DstUnreachable::CommProhibited => false,
        _ => return None,
    };
    // The original packet is cut off: its length field is more than what is here.
    let original = icmp.data();
    let header = usize::from(*original.first()? & 0xf) * 4;
    let protocol = IpProtocol::from(*original.get(9)?);
    if original[0] >> 4 != 4
        || header < 20
        || !matches!(protocol, IpProtocol::Tcp | IpProtocol::Udp)
    {
        return None;
    }
    let address =
        |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(original.get(at..at + 4)?).ok()?));
    let number = |at: usize| Some(u16::from_be_bytes(original.get(at..at + 2)?.try_into().ok()?));
    Some(Peek::Unreachable {
        protocol,
        local: SocketAddrV4::new(address(12)?, number(header)?),
        remote: SocketAddrV4::new(address(16)?, number(header + 2)?),
        port,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;
    use proptest::prelude::*;
    use smoltcp::{
        phy::ChecksumCapabilities,
        wire::{Icmpv4Repr, IpAddress, Ipv4Repr, TcpControl, TcpRepr, UdpRepr},
    };

    const A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
    const B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

    fn ip(protocol: IpProtocol, len: usize, fill: impl FnOnce(&mut [u8])) -> Vec<u8> {
        let repr = Ipv4Repr {
            src_addr: A,
            dst_addr: B,
            next_header: protocol,
            payload_len: len,
            hop_limit: 64,
        };
        let mut bytes = vec![0; repr.buffer_len() + len];
        repr.emit(&mut Ipv4Packet::new_unchecked(&mut bytes[..]), &ChecksumCapabilities::default());
        fill(&mut bytes[repr.buffer_len()..]);
        bytes
    }

    fn datagram(data: &[u8]) -> Vec<u8> {
        let repr = UdpRepr { src_port: 7, dst_port: 9 };
        ip(IpProtocol::Udp, repr.header_len() + data.len(), |to| {
            repr.emit(
                &mut UdpPacket::new_unchecked(to),
                &IpAddress::from(A),
                &IpAddress::from(B),
                data.len(),
                |to| to.copy_from_slice(data),
                &ChecksumCapabilities::default(),
            );
        })
    }

    #[test]
    fn a_datagram_and_its_payload_are_found() {
        let bytes = datagram(b"payload");
        match peek(&bytes, Medium::Ip, false) {
            Peek::Udp { from, to, payload: (start, end) } => {
                assert_eq!((from, to), (SocketAddrV4::new(A, 7), SocketAddrV4::new(B, 9)));
                assert_eq!(&bytes[start..end], b"payload");
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_changed_datagram_is_bad_unless_the_device_vouches_for_it() {
        let mut bytes = datagram(b"payload");
        *bytes.last_mut().unwrap() ^= 1;
        assert_eq!(peek(&bytes, Medium::Ip, false), Peek::Bad);
        assert!(matches!(peek(&bytes, Medium::Ip, true), Peek::Udp { .. }));
    }

    #[test]
    fn only_a_plain_syn_opens() {
        for (control, ack, opens) in [
            (TcpControl::Syn, None, true),
            (TcpControl::Syn, Some(TcpSeqNumber(1)), false),
            (TcpControl::None, Some(TcpSeqNumber(1)), false),
            (TcpControl::Rst, None, false),
        ] {
            let repr = TcpRepr {
                src_port: 7,
                dst_port: 9,
                control,
                seq_number: TcpSeqNumber(5),
                ack_number: ack,
                window_len: 100,
                window_scale: None,
                max_seg_size: None,
                sack_permitted: false,
                sack_ranges: [None; 3],
                timestamp: None,
                payload: b"",
            };
            let bytes = ip(IpProtocol::Tcp, repr.buffer_len(), |to| {
                repr.emit(
                    &mut TcpPacket::new_unchecked(to),
                    &IpAddress::from(A),
                    &IpAddress::from(B),
                    &ChecksumCapabilities::default(),
                );
            });
            let (from, to) = (SocketAddrV4::new(A, 7), SocketAddrV4::new(B, 9));
            let only_acknowledges = ack.filter(|_| control == TcpControl::None);
            let expected = Peek::Tcp { from, to, opens, only_acknowledges };
            assert_eq!(peek(&bytes, Medium::Ip, false), expected);
        }
    }

    #[test]
    fn an_unreachable_port_names_our_socket() {
        let original = datagram(b"data");
        let header = Ipv4Repr::parse(
            &Ipv4Packet::new_checked(&original[..]).unwrap(),
            &ChecksumCapabilities::default(),
        )
        .unwrap();
        let repr = Icmpv4Repr::DstUnreachable {
            reason: Icmpv4DstUnreachable::PortUnreachable,
            header,
            data: &original[20..],
        };
        let bytes = ip(IpProtocol::Icmp, repr.buffer_len(), |to| {
            repr.emit(&mut Icmpv4Packet::new_unchecked(to), &ChecksumCapabilities::default());
        });
        let expected = Peek::Unreachable {
            protocol: IpProtocol::Udp,
            local: SocketAddrV4::new(A, 7),
            remote: SocketAddrV4::new(B, 9),
            port: true,
        };
        assert_eq!(peek(&bytes, Medium::Ip, false), expected);
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_safely(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..200),
            good: bool,
            ethernet: bool,
        ) {
            // Mostly IPv4, so that the inner parts get their share.
            let start = if ethernet { 14 } else { 0 };
            if ethernet && bytes.len() > 14 {
                (bytes[12], bytes[13]) = (8, 0);
            }
            if let Some(first) = bytes.get_mut(start) {
                *first = 0x45;
            }
            let medium = if ethernet { Medium::Ethernet } else { Medium::Ip };
            if let Peek::Udp { payload: (start, end), .. } = peek(&bytes, medium, good) {
                prop_assert!(start <= end && end <= bytes.len());
            }
        }

        #[test]
        fn a_cut_or_changed_datagram_stays_in_bounds(
            at in 0_usize..48,
            bit in 0_u8..8,
            cut in 0_usize..48,
        ) {
            let mut bytes = datagram(b"twenty bytes of data");
            if at < bytes.len() { bytes[at] ^= 1 << bit; }
            bytes.truncate(bytes.len() - cut);
            if let Peek::Udp { payload: (start, end), .. } = peek(&bytes, Medium::Ip, true) {
                prop_assert!(start <= end && end <= bytes.len());
            }
        }
    }
}
