//! One network link: a device, and smoltcp's interface on it.
//!
//! smoltcp checks every socket of a set for every packet. Here each connection is a set of its own,
//! so a packet costs the same with one connection as with thousands: [`peek`](mod@super::peek)
//! finds the socket that it is for.

use super::{
    loopback::Loopback,
    packet_counter::Counting,
    peek::{Peek, peek},
};
use crate::drivers::NetDevice;
use alloc::{boxed::Box, vec, vec::Vec};
use core::net::Ipv4Addr;
use smoltcp::{
    iface::{Config, Interface, PollIngressSingleResult, SocketHandle, SocketSet},
    phy::{Medium, TxToken},
    socket::raw,
    time::Instant,
    wire::{
        ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol,
        EthernetRepr, HardwareAddress, IpProtocol, IpVersion,
    },
};

/// Which link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LinkId {
    /// The guest itself.
    Loopback,
    /// The network device.
    Ethernet,
}

/// What became of an attempt to send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sent {
    /// A packet went out; there may be more.
    Packet,
    /// There was nothing to send, or the neighbor it is for is not known yet.
    Nothing,
    /// The device takes no packet for now.
    Full,
}

/// See the module.
pub struct Link<D> {
    iface: Box<Interface>,
    device: D,
    /// An empty set, for what is for no socket.
    no_sockets: SocketSet<'static>,
    /// Takes UDP datagrams that arrived in parts; made when the first part does.
    whole: Option<(SocketSet<'static>, SocketHandle)>,
}

/// Room for a datagram put together from its parts, of the largest size.
const WHOLE_MAX: usize = 66_000;

fn empty_set() -> SocketSet<'static> {
    SocketSet::new(Vec::new())
}

impl<D: NetDevice> Link<D> {
    pub fn new(config: Config, mut device: D, now: Instant) -> Self {
        let iface = Box::new(Interface::new(config, &mut device, now));
        Self { iface, device, no_sockets: empty_set(), whole: None }
    }

    pub fn iface(&mut self) -> &mut Interface {
        &mut self.iface
    }

    pub fn device(&mut self) -> &mut D {
        &mut self.device
    }

    /// Announces to switches and neighbors where `ip` is now: they may remember an earlier guest
    /// with the same addresses elsewhere.
    pub fn announce(&mut self, ip: Ipv4Addr, now: Instant) {
        let HardwareAddress::Ethernet(mac) = self.iface.hardware_addr() else { return };
        let ethernet = EthernetRepr {
            src_addr: mac,
            dst_addr: EthernetAddress::BROADCAST,
            ethertype: EthernetProtocol::Arp,
        };
        let arp = ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Request,
            source_hardware_addr: mac,
            source_protocol_addr: ip,
            target_hardware_addr: EthernetAddress([0; 6]),
            target_protocol_addr: ip,
        };
        // A device without room for its first frame loses the announcement: neighbors ask later.
        let Some(token) = self.device.transmit(now) else { return };
        token.consume(ethernet.buffer_len() + arp.buffer_len(), |buffer| {
            let mut frame = EthernetFrame::new_unchecked(buffer);
            ethernet.emit(&mut frame);
            arp.emit(&mut ArpPacket::new_unchecked(frame.payload_mut()));
        });
    }

    fn mtu(&self) -> usize {
        self.device.capabilities().ip_mtu()
    }

    fn peek(&mut self) -> Option<Peek> {
        let medium = self.device.capabilities().medium;
        let frame = self.device.peek()?;
        Some(peek(frame.bytes, medium, frame.checksum_good))
    }

    /// The IP packet of the next frame.
    fn packet(&mut self) -> Option<Vec<u8>> {
        let header = match self.device.capabilities().medium {
            Medium::Ethernet => EthernetFrame::<&[u8]>::header_len(),
            Medium::Ip => 0,
        };
        Some(self.device.peek()?.bytes.get(header..)?.to_vec())
    }

    /// Hands the next frame to the sockets of `set`, or to none. `false` when it could not be taken
    /// yet.
    fn ingress(&mut self, now: Instant, set: Option<&mut SocketSet<'static>>) -> bool {
        let set = set.unwrap_or(&mut self.no_sockets);
        self.iface.poll_ingress_single(now, &mut self.device, set) != PollIngressSingleResult::None
    }

    /// Takes the next frame, which is part of a datagram; the datagram if it is whole now, as an IP
    /// packet.
    fn ingress_part(&mut self, now: Instant) -> Option<Option<Vec<u8>>> {
        let (set, handle) = self.whole.get_or_insert_with(|| {
            let buffer = |packets: usize, bytes: usize| {
                raw::PacketBuffer::new(vec![raw::PacketMetadata::EMPTY; packets], vec![0; bytes])
            };
            let socket = raw::Socket::new(
                Some(IpVersion::Ipv4),
                Some(IpProtocol::Udp),
                buffer(1, WHOLE_MAX),
                buffer(0, 0),
            );
            let mut set = SocketSet::new(Vec::with_capacity(1));
            let handle = set.add(socket);
            (set, handle)
        });
        let taken = self.iface.poll_ingress_single(now, &mut self.device, set);
        if taken == PollIngressSingleResult::None {
            return None;
        }
        Some(set.get_mut::<raw::Socket<'_>>(*handle).recv().ok().map(<[u8]>::to_vec))
    }

    fn egress(&mut self, now: Instant, set: &mut SocketSet<'static>) -> Sent {
        if !self.device.has_room() {
            return Sent::Full;
        }
        let mut watch = Counting { device: &mut self.device, packets: 0 };
        self.iface.poll_egress(now, &mut watch, set);
        if watch.packets > 0 { Sent::Packet } else { Sent::Nothing }
    }

    /// Whether some is left of a datagram that goes out in parts.
    fn has_parts(&mut self, now: Instant) -> bool {
        self.iface.poll_at(now, &self.no_sockets).is_some_and(|at| at <= now)
    }

    /// Sends what is left of a datagram that goes out in parts. `false` while some is left.
    fn egress_parts(&mut self, now: Instant) -> bool {
        while self.has_parts(now) {
            if !self.device.has_room() {
                return false;
            }
            self.iface.poll_egress(now, &mut self.device, &mut self.no_sockets);
        }
        true
    }
}

/// The links there are.
pub struct Links<D> {
    pub loopback: Link<Loopback>,
    pub ethernet: Option<Link<D>>,
}

macro_rules! on {
    ($self:ident, $id:expr, $none:expr, $link:ident => $do:expr) => {
        match ($id, &mut $self.ethernet) {
            (LinkId::Loopback, _) => {
                let $link = &mut $self.loopback;
                $do
            }
            (LinkId::Ethernet, Some($link)) => $do,
            (LinkId::Ethernet, None) => $none,
        }
    };
}

impl<D: NetDevice> Links<D> {
    pub fn peek(&mut self, id: LinkId) -> Option<Peek> {
        on!(self, id, None, link => link.peek())
    }

    /// The bytes of the next frame from `start` to `end`, which [`peek`](Self::peek) gave.
    pub fn bytes(&mut self, id: LinkId, (start, end): (usize, usize)) -> Option<Vec<u8>> {
        on!(self, id, None, link => Some(link.device.peek()?.bytes.get(start..end)?.to_vec()))
    }

    /// Takes the next frame; its IP packet.
    pub fn take_packet(&mut self, id: LinkId) -> Vec<u8> {
        let packet = on!(self, id, None, link => link.packet());
        self.discard(id);
        packet.unwrap_or_default()
    }

    pub fn discard(&mut self, id: LinkId) {
        on!(self, id, (), link => link.device.discard());
    }

    pub fn ingress(
        &mut self,
        id: LinkId,
        now: Instant,
        set: Option<&mut SocketSet<'static>>,
    ) -> bool {
        on!(self, id, false, link => link.ingress(now, set))
    }

    pub fn ingress_part(&mut self, id: LinkId, now: Instant) -> Option<Option<Vec<u8>>> {
        on!(self, id, None, link => link.ingress_part(now))
    }

    pub fn egress(&mut self, id: LinkId, now: Instant, set: &mut SocketSet<'static>) -> Sent {
        on!(self, id, Sent::Nothing, link => link.egress(now, set))
    }

    pub fn has_parts(&mut self, id: LinkId, now: Instant) -> bool {
        on!(self, id, false, link => link.has_parts(now))
    }

    pub fn egress_parts(&mut self, id: LinkId, now: Instant) -> bool {
        on!(self, id, true, link => link.egress_parts(now))
    }

    pub fn poll_at(
        &mut self,
        id: LinkId,
        now: Instant,
        set: &SocketSet<'static>,
    ) -> Option<Instant> {
        on!(self, id, None, link => link.iface.poll_at(now, set))
    }

    /// Whether there is that link.
    pub fn is_there(&self, id: LinkId) -> bool {
        id == LinkId::Loopback || self.ethernet.is_some()
    }

    /// Longest IP packet.
    pub fn mtu(&mut self, id: LinkId) -> usize {
        on!(self, id, 0, link => link.mtu())
    }
}
