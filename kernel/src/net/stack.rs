//! The network stack: links, sockets, and which socket gets which packet. It reads no clock and
//! waits for nothing.
//!
//! [`Stack::poll`] moves packets; what a program does with a socket is in [`super::calls`]. Both
//! note in [`Stack::take_touched`] which sockets' readiness may have changed, so that only threads
//! that wait for these are woken.

use super::{
    Error, LinkId, SocketId,
    buffers::Budget,
    connection_state::Cause,
    link::{Link, Links},
    loopback::Loopback,
    opener::Opener,
    peek::Peek,
    ports::Ports,
    sequence::Sequence,
    slab::Slab,
    tcp::{Phase, Role, Tcp},
    timers::Timers,
    udp::Udp,
};
use crate::{drivers::NetDevice, entropy::Epoch};
use alloc::{
    collections::{BTreeSet, VecDeque},
    vec::Vec,
};
use core::{
    mem,
    net::{Ipv4Addr, SocketAddrV4},
};
use foldhash::quality::FixedState;
use hashbrown::HashMap;
use smoltcp::{
    iface,
    socket::tcp::State,
    time::Instant,
    wire::{EthernetAddress, HardwareAddress, IpCidr, IpProtocol, Ipv4Cidr},
};

/// Most packets that are handled in one poll.
const PACKETS_A_POLL: usize = 512;

/// What a stack is made from.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Address of the network device, and the length of its network's prefix.
    pub ip: Option<(Ipv4Addr, u8)>,
    /// The router.
    pub gateway: Option<Ipv4Addr>,
    /// Ethernet address of the network device.
    pub mac: [u8; 6],
    /// Something that differs from start to start: positions in tables come from it, and numbers
    /// that need not be secret.
    pub seed: u64,
    /// Fills with random bytes fit for keys: ports come from it, and the secret of sequence
    /// numbers.
    pub random: fn(&mut [u8]),
    /// Changes when secrets may have become known, so that new ones are to be drawn.
    pub epoch: fn() -> Epoch,
    /// Bytes that all connections' buffers together should take.
    pub buffers: usize,
    /// Whether that many bytes of memory can be allocated in one piece.
    pub has_room: fn(usize) -> bool,
}

/// A socket.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(Tcp),
    Udp(Udp),
}

/// The two ends of a connection, ours first.
pub(super) type Pair = (SocketAddrV4, SocketAddrV4);

/// See the module.
pub struct Stack<D> {
    pub(super) now: Instant,
    pub(super) ip: Option<Ipv4Addr>,
    pub(super) links: Links<D>,
    pub(super) sockets: Slab<Socket>,
    pub(super) tcp_ports: Ports,
    pub(super) udp_ports: Ports,
    pub(super) sequence: Sequence,
    pub(super) opener: Opener,
    pub(super) connections: HashMap<Pair, SocketId, FixedState>,
    pub(super) budget: Budget,
    pub(super) has_room: fn(usize) -> bool,
    pub(super) timers: Timers,
    /// Sockets that may have something to send.
    pub(super) tx_queue: VecDeque<SocketId>,
    /// Sockets whose neighbor is being searched for.
    pub(super) stuck: BTreeSet<SocketId>,
    /// UDP sockets that were closed before all had left that was sent.
    pub(super) lingering: VecDeque<SocketId>,
    pub(super) time_wait: VecDeque<SocketId>,
    pub(super) time_wait_bytes: usize,
    touched: Vec<SocketId>,
    due: Vec<SocketId>,
}

impl<D: NetDevice> Stack<D> {
    /// A stack on `device`, or with the loopback link only.
    pub fn new(config: &Config, device: Option<D>, now_ns: u64) -> Self {
        let now = instant(now_ns);
        let mut lo = iface::Config::new(HardwareAddress::Ip);
        lo.random_seed = config.seed;
        let mut loopback = Link::new(lo, Loopback::default(), now);
        loopback.iface().update_ip_addrs(|addresses| {
            // The others of 127.0.0.0/8, and our own, are taken as well: see `set_any_ip`.
            let local = IpCidr::Ipv4(Ipv4Cidr::new(Ipv4Addr::LOCALHOST, 8));
            addresses.push(local).expect("the first address");
        });
        loopback.iface().set_any_ip(true);
        let ethernet = device.map(|device| {
            let mac = HardwareAddress::Ethernet(EthernetAddress(config.mac));
            let mut eth = iface::Config::new(mac);
            eth.random_seed = config.seed.rotate_left(32) ^ 0x9e37_79b9_7f4a_7c15;
            let mut link = Link::new(eth, device, now);
            if let Some((ip, prefix)) = config.ip {
                link.iface().update_ip_addrs(|addresses| {
                    let cidr = IpCidr::Ipv4(Ipv4Cidr::new(ip, prefix.min(32)));
                    addresses.push(cidr).expect("the first address");
                });
            }
            if let Some(gateway) = config.gateway {
                link.iface().routes_mut().add_default_ipv4_route(gateway).expect("the first route");
            }
            link
        });
        Self {
            now,
            ip: config.ip.map(|(ip, _)| ip).filter(|_| ethernet.is_some()),
            links: Links { loopback, ethernet },
            sockets: Slab::new(),
            tcp_ports: Ports::new(config.seed, config.random),
            udp_ports: Ports::new(config.seed >> 16, config.random),
            sequence: Sequence::new(config.random, config.epoch),
            opener: Opener::new(),
            connections: HashMap::with_hasher(FixedState::with_seed(config.seed)),
            budget: Budget::new(config.buffers),
            has_room: config.has_room,
            timers: Timers::default(),
            tx_queue: VecDeque::new(),
            stuck: BTreeSet::new(),
            lingering: VecDeque::new(),
            time_wait: VecDeque::new(),
            time_wait_bytes: 0,
            touched: Vec::new(),
            due: Vec::new(),
        }
    }

    /// Announces to the network where this guest is.
    pub fn announce(&mut self) {
        if let (Some(ip), Some(link)) = (self.ip, &mut self.links.ethernet) {
            link.announce(ip, self.now);
        }
    }

    /// The network device.
    pub fn device(&mut self) -> Option<&mut D> {
        Some(self.links.ethernet.as_mut()?.device())
    }

    /// How many sockets there are, those included that end by themselves.
    pub fn socket_count(&self) -> usize {
        self.sockets.len()
    }

    /// Those whose readiness may have changed since the last call, some of them more than once.
    pub fn take_touched(&mut self, into: &mut Vec<SocketId>) {
        into.clear();
        mem::swap(&mut self.touched, into);
    }

    /// Whether [`take_touched`](Self::take_touched) has any.
    pub fn any_touched(&self) -> bool {
        !self.touched.is_empty()
    }

    pub(super) fn touch(&mut self, id: SocketId) {
        if self.touched.last() != Some(&id) {
            self.touched.push(id);
        }
    }

    /// Handles what has arrived, what is to be sent, and what is due at `now_ns`. Returns when to
    /// call again at the latest: at once (`now_ns`) when there is more to do.
    pub fn poll(&mut self, now_ns: u64) -> Option<u64> {
        self.now = self.now.max(instant(now_ns));
        let mut due = mem::take(&mut self.due);
        self.timers.take_due(self.now, &mut due);
        for id in due.drain(..) {
            self.timer_due(id);
        }
        self.due = due;
        let mut left = PACKETS_A_POLL;
        let mut more = true;
        while more && left > 0 {
            more = false;
            for link in [LinkId::Ethernet, LinkId::Loopback] {
                while left > 0 && self.ingress(link) {
                    left -= 1;
                    more = true;
                }
            }
            more |= self.egress(&mut left);
        }
        if more || !self.tx_queue.is_empty() {
            return Some(now_ns);
        }
        let next = self.timers.next()?;
        Some(u64::try_from(next.total_micros()).unwrap_or(0).saturating_mul(1000))
    }

    /// Takes one frame from `link`. `false` when there was none, or none could be taken.
    fn ingress(&mut self, link: LinkId) -> bool {
        let Some(frame) = self.links.peek(link) else { return false };
        match frame {
            Peek::Bad => {
                self.links.discard(link);
                true
            }
            Peek::Tcp { from, to, opens, only_acknowledges } => {
                if self.connections.get(&(to, from)).copied().is_some_and(|id| {
                    let connection = self.connection(id);
                    connection.is_some_and(|c| c.is_idle_repetition(only_acknowledges))
                }) {
                    self.links.discard(link);
                    return true;
                }
                self.segment(link, from, to, opens)
            }
            Peek::Udp { from, to, payload } => {
                let receivers = self.receivers(from, to);
                if receivers.is_empty() || !self.is_ours(link, *to.ip()) {
                    return self.links.ingress(link, self.now, None);
                }
                let data = self.links.bytes(link, payload).unwrap_or_default();
                self.links.discard(link);
                self.deliver(&receivers, from, &data);
                true
            }
            Peek::Fragment => match self.links.ingress_part(link, self.now) {
                None => false,
                Some(None) => true,
                Some(Some(packet)) => {
                    let whole = super::peek::peek(&packet, smoltcp::phy::Medium::Ip, false);
                    if let Peek::Udp { from, to, payload: (start, end) } = whole {
                        let receivers = self.receivers(from, to);
                        self.deliver(&receivers, from, &packet[start..end]);
                    }
                    true
                }
            },
            Peek::Unreachable { protocol, local, remote, port } => {
                self.unreachable(protocol, local, remote, port);
                self.links.discard(link);
                true
            }
            Peek::Arp => {
                let taken = self.links.ingress(link, self.now, None);
                for id in mem::take(&mut self.stuck) {
                    self.enqueue(id, link);
                }
                taken
            }
            Peek::Other => self.links.ingress(link, self.now, None),
        }
    }

    /// Whether a datagram that came by `link` for `to` is for this guest.
    fn is_ours(&mut self, link: LinkId, to: Ipv4Addr) -> bool {
        match (link, &mut self.links.ethernet) {
            (LinkId::Ethernet, Some(ethernet)) => {
                let addresses = ethernet.iface().ip_addrs();
                to.is_broadcast()
                    || to.is_multicast()
                    || addresses.iter().any(|cidr| match cidr {
                        IpCidr::Ipv4(own) => own.address() == to || own.broadcast() == Some(to),
                        IpCidr::Ipv6(_) => false,
                    })
            }
            _ => true,
        }
    }

    fn segment(&mut self, link: LinkId, from: SocketAddrV4, to: SocketAddrV4, opens: bool) -> bool {
        let mut target = self.connections.get(&(to, from)).copied();
        if let Some(id) = target {
            match self.connection(id) {
                Some(connection) if connection.link != link => target = None,
                // The peer uses its port again before we have forgotten its last connection.
                Some(connection) if opens && connection.is_forgotten_by_peer() => {
                    self.remove_connection(id);
                    target = None;
                }
                _ => {}
            }
        }
        if target.is_none()
            && opens
            // Not a group's or the network's.
            && (link == LinkId::Loopback || Some(*to.ip()) == self.ip)
            && let Some(listener) = self.tcp_ports.listener(to)
        {
            match self.half_open(listener, link, to, from) {
                Some(id) => target = Some(id),
                // The backlog is full: the peer tries again.
                None => {
                    self.links.discard(link);
                    return true;
                }
            }
        }
        let Some(id) = target else { return self.links.ingress(link, self.now, None) };
        let Some(Socket::Tcp(Tcp { role: Role::Connection(connection), .. })) =
            self.sockets.get_mut(id.0)
        else {
            self.links.discard(link);
            return true;
        };
        let taken = if connection.seen == State::Listen {
            // The first that it gets: smoltcp would draw its initial sequence number.
            let first = self.sequence.first(self.now, to, from);
            let packet = self.links.take_packet(link);
            let mtu = self.links.mtu(link);
            self.opener.accept(first, mtu, &packet, *to.ip(), self.now, &mut connection.set);
            true
        } else {
            self.links.ingress(link, self.now, Some(&mut connection.set))
        };
        self.update(id, Cause::Arrival);
        taken
    }

    fn receivers(&self, from: SocketAddrV4, to: SocketAddrV4) -> Vec<SocketId> {
        let bound = self.udp_ports.at(to.port());
        let fit = |id: SocketId| match self.sockets.get(id.0) {
            Some(Socket::Udp(udp)) => udp.fit(from, to),
            _ => None,
        };
        if to.ip().is_broadcast() || to.ip().is_multicast() {
            return bound.iter().map(|b| b.id).filter(|&id| fit(id).is_some()).collect();
        }
        let best =
            bound.iter().filter_map(|b| Some((fit(b.id)?, b.id))).max_by_key(|&(fit, _)| fit);
        best.map(|(_, id)| id).into_iter().collect()
    }

    fn deliver(&mut self, receivers: &[SocketId], from: SocketAddrV4, data: &[u8]) {
        for &id in receivers {
            if let Some(Socket::Udp(udp)) = self.sockets.get_mut(id.0) {
                udp.deliver(from, data);
                self.touch(id);
            }
        }
    }

    /// One of our packets did not arrive.
    fn unreachable(
        &mut self,
        protocol: IpProtocol,
        local: SocketAddrV4,
        remote: SocketAddrV4,
        port: bool,
    ) {
        let error = if port { Error::ConnectionRefused } else { Error::HostUnreachable };
        if protocol == IpProtocol::Udp {
            // Only a connected socket gets the error, as elsewhere: others could not know which of
            // their datagrams it is about.
            for id in self.receivers(remote, local) {
                if let Some(Socket::Udp(udp)) = self.sockets.get_mut(id.0)
                    && udp.peer == Some(remote)
                {
                    udp.error = Some(error);
                    self.touch(id);
                }
            }
        } else if let Some(&id) = self.connections.get(&(local, remote))
            && self.connection(id).is_some_and(|c| c.phase == Phase::Connecting)
        {
            self.connection_failed(id, error);
        }
    }
}

/// smoltcp counts microseconds.
fn instant(ns: u64) -> Instant {
    Instant::from_micros((ns / 1000) as i64)
}
