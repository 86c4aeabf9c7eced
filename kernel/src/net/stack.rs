//! The network stack: links, sockets, and who gets which packet. It reads no clock and waits for nothing.
//!
//! [`Stack::poll`] moves packets; what a program does with a socket is in [`super::calls`]. Both note in
//! [`Stack::take_touched`] whose readiness may have changed, so that just those who wait for these are woken.

use super::{
    Error, LinkId, SocketId,
    buffers::Budget,
    device::NetDevice,
    link::{Link, Links, Sent},
    loopback::Loopback,
    peek::Peek,
    ports::Ports,
    slab::Slab,
    tcp::{Connection, Phase, Role, Tcp},
    timers::Timers,
    udp::Udp,
};
use alloc::{
    boxed::Box,
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
    time::{Duration, Instant},
    wire::{EthernetAddress, HardwareAddress, IpCidr, IpListenEndpoint, IpProtocol, Ipv4Cidr},
};

/// Packets handled in one poll before others get their turn.
const PACKETS_A_POLL: usize = 512;
/// Connections in TIME-WAIT that are kept; the oldest goes first.
const TIME_WAIT_MAX: usize = 64;
/// How long a neighbor may be looked for.
const NEIGHBOR_TIMEOUT: Duration = Duration::from_secs(3);
/// When to try again where smoltcp says it has something to send and does not send it.
const RETRY: Duration = Duration::from_millis(1);

/// What a stack is made from.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Address of the network device, and the length of its network's prefix.
    pub ip: Option<(Ipv4Addr, u8)>,
    /// The router.
    pub gateway: Option<Ipv4Addr>,
    /// Ethernet address of the network device.
    pub mac: [u8; 6],
    /// Something that differs from start to start: sequence numbers and ports come from it.
    pub seed: u64,
    /// Bytes that all connections' buffers together should take.
    pub buffers: usize,
    /// Whether so many bytes of memory could be had in one piece.
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

/// Why a connection is looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// A packet came for it.
    Arrival,
    /// It may send, or a timer is due.
    Turn,
    /// The program did something.
    Call,
}

/// See the module.
pub struct Stack<D> {
    pub(super) now: Instant,
    pub(super) ip: Option<Ipv4Addr>,
    pub(super) links: Links<D>,
    pub(super) sockets: Slab<Socket>,
    pub(super) tcp_ports: Ports,
    pub(super) udp_ports: Ports,
    pub(super) connections: HashMap<Pair, SocketId, FixedState>,
    pub(super) budget: Budget,
    pub(super) has_room: fn(usize) -> bool,
    timers: Timers,
    /// Those that may have something to send.
    turn: VecDeque<SocketId>,
    /// Those whose neighbor is being looked for.
    stuck: BTreeSet<SocketId>,
    time_wait: VecDeque<SocketId>,
    time_wait_bytes: usize,
    touched: Vec<SocketId>,
    due: Vec<SocketId>,
}

impl<D: NetDevice> Stack<D> {
    /// A stack on `device`, or with only itself to talk to.
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
            tcp_ports: Ports::new(config.seed),
            udp_ports: Ports::new(config.seed >> 16),
            connections: HashMap::with_hasher(FixedState::with_seed(config.seed)),
            budget: Budget::new(config.buffers),
            has_room: config.has_room,
            timers: Timers::default(),
            turn: VecDeque::new(),
            stuck: BTreeSet::new(),
            time_wait: VecDeque::new(),
            time_wait_bytes: 0,
            touched: Vec::new(),
            due: Vec::new(),
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

    /// Handles what has arrived, what is to be sent, and what is due at `now_ns`. Returns when to call again at the
    /// latest: at once (`now_ns`) when there is more to do.
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
        if more || !self.turn.is_empty() {
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

    /// Whether a datagram that came by `link` for `to` is for this machine.
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
                Some(connection)
                    if opens
                        && connection.phase == Phase::Orphan
                        && connection.seen == State::TimeWait =>
                {
                    self.remove_connection(id);
                    target = None;
                }
                _ => {}
            }
        }
        if target.is_none()
            && opens
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
        let taken = self.links.ingress(link, self.now, Some(&mut connection.set));
        self.look_at(id, Cause::Arrival);
        taken
    }

    /// A new connection for `listener`, if it has room for one.
    fn half_open(
        &mut self,
        listener: SocketId,
        link: LinkId,
        local: SocketAddrV4,
        remote: SocketAddrV4,
    ) -> Option<SocketId> {
        let Some(Socket::Tcp(tcp)) = self.sockets.get_mut(listener.0) else { return None };
        let options = tcp.options;
        let Role::Listener(role) = &mut tcp.role else { return None };
        if role.half_open + role.queue.len() >= role.backlog {
            return None;
        }
        let buffer = self.budget.take(self.has_room).ok()?;
        let phase = Phase::HalfOpen(listener);
        let Some(mut connection) = Connection::new(link, local, remote, phase, buffer) else {
            self.budget.give_back(buffer);
            return None;
        };
        role.half_open += 1;
        connection.apply(&options);
        let endpoint = IpListenEndpoint { addr: Some((*local.ip()).into()), port: local.port() };
        connection.socket_mut().listen(endpoint).expect("a new socket, and a port that is not 0");
        connection.seen = State::Listen;
        let role = Role::Connection(Box::new(connection));
        let id =
            SocketId(self.sockets.insert(Socket::Tcp(Tcp { options, role, ..Tcp::default() })));
        self.connections.insert((local, remote), id);
        Some(id)
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
            // Only a connected socket is told, as elsewhere: the others could not know which of their datagrams it was.
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

    pub(super) fn connection(&mut self, id: SocketId) -> Option<&mut Connection> {
        match self.sockets.get_mut(id.0)? {
            Socket::Tcp(Tcp { role: Role::Connection(connection), .. }) => Some(connection),
            _ => None,
        }
    }

    /// Finds out what has become of a connection, and when it is to be looked at next.
    pub(super) fn look_at(&mut self, id: SocketId, cause: Cause) {
        let Some(Socket::Tcp(tcp)) = self.sockets.get_mut(id.0) else { return };
        let Role::Connection(connection) = &mut tcp.role else { return };
        let (was, is) = (connection.seen, connection.socket().state());
        connection.seen = is;
        match connection.phase {
            Phase::Connecting => match is {
                State::SynSent | State::SynReceived => {}
                State::Closed => {
                    let error = match cause {
                        Cause::Arrival => Error::ConnectionRefused,
                        Cause::Turn | Cause::Call => Error::TimedOut,
                    };
                    return self.connection_failed(id, error);
                }
                _ => {
                    connection.phase = Phase::Open;
                    self.touch(id);
                }
            },
            Phase::HalfOpen(listener) => match is {
                State::SynReceived => {}
                State::Closed | State::Listen => {
                    self.remove_connection(id);
                    return;
                }
                _ => self.opened(id, listener),
            },
            Phase::Queued(_) | Phase::Open => {
                if is == State::Closed && was != State::Closed {
                    let regular = matches!(was, State::LastAck | State::TimeWait);
                    tcp.error = match cause {
                        _ if regular => None,
                        Cause::Arrival if was == State::CloseWait => Some(Error::BrokenPipe),
                        Cause::Arrival => Some(Error::ConnectionReset),
                        Cause::Turn => Some(Error::TimedOut),
                        Cause::Call => None,
                    };
                }
                self.touch(id);
            }
            Phase::Orphan => {
                if connection.socket().recv_queue() > 0 && is != State::Closed {
                    // Nobody will ever read it: the peer should know.
                    connection.socket_mut().abort();
                    connection.seen = State::Closed;
                } else if is == State::TimeWait {
                    // Within the machine nothing is lost: what there is to be said has been, when it had its turn.
                    if connection.link == LinkId::Loopback && cause == Cause::Turn {
                        self.remove_connection(id);
                        return;
                    }
                    self.wait_out(id);
                }
                if self.connection(id).is_none_or(|c| c.over()) {
                    self.remove_connection(id);
                    return;
                }
            }
        }
        self.schedule(id);
    }

    /// Keeps a connection in TIME-WAIT, as far as there is room for such.
    fn wait_out(&mut self, id: SocketId) {
        let Some(connection) = self.connection(id) else { return };
        if mem::replace(&mut connection.waits, true) {
            return;
        }
        self.time_wait_bytes += 2 * connection.buffer;
        self.time_wait.push_back(id);
        while self.time_wait.len() > TIME_WAIT_MAX
            || self.time_wait_bytes > self.budget.idle_share() && self.time_wait.len() > 1
        {
            let Some(&oldest) = self.time_wait.front() else { break };
            self.remove_connection(oldest);
        }
    }

    /// A connection that `listener` was asked for is there.
    fn opened(&mut self, id: SocketId, listener: SocketId) {
        if let Some(connection) = self.connection(id) {
            connection.phase = Phase::Queued(listener);
        }
        if let Some(Socket::Tcp(Tcp { role: Role::Listener(role), .. })) =
            self.sockets.get_mut(listener.0)
        {
            role.half_open -= 1;
            role.queue.push_back(id);
            self.touch(listener);
        }
    }

    /// An attempt to connect has failed: the socket is as before, with an error to be fetched.
    fn connection_failed(&mut self, id: SocketId, error: Error) {
        self.drop_connection(id);
        if let Some(Socket::Tcp(tcp)) = self.sockets.get_mut(id.0) {
            tcp.error = Some(error);
        }
        self.touch(id);
    }

    /// Takes the connection away from its socket.
    fn drop_connection(&mut self, id: SocketId) {
        let Some(Socket::Tcp(tcp)) = self.sockets.get_mut(id.0) else { return };
        if !matches!(tcp.role, Role::Connection(_)) {
            return;
        }
        let Role::Connection(mut gone) = mem::take(&mut tcp.role) else { return };
        self.connections.remove(&(gone.local, gone.remote));
        self.timers.cancel(id, &mut gone.timer);
        self.budget.give_back(gone.buffer);
        if gone.waits {
            self.time_wait.retain(|&other| other != id);
            self.time_wait_bytes -= 2 * gone.buffer;
        }
        if let Phase::HalfOpen(listener) = gone.phase
            && let Some(Socket::Tcp(Tcp { role: Role::Listener(role), .. })) =
                self.sockets.get_mut(listener.0)
        {
            role.half_open -= 1;
        }
    }

    /// Forgets a connection that no program has.
    pub(super) fn remove_connection(&mut self, id: SocketId) {
        self.drop_connection(id);
        self.forget(id);
    }

    /// Removes a socket from all tables.
    pub(super) fn forget(&mut self, id: SocketId) {
        // What is left of it in `turn` and `stuck` finds nothing, or another socket with nothing to do.
        match self.sockets.remove(id.0) {
            Some(Socket::Tcp(tcp)) => {
                if let Some(bound) = tcp.bound {
                    self.tcp_ports.release(id, bound.port());
                }
            }
            Some(Socket::Udp(mut udp)) => {
                self.timers.cancel(id, &mut udp.timer);
                if let Some(bound) = udp.bound {
                    self.udp_ports.release(id, bound.port());
                }
            }
            None => {}
        }
    }

    /// Puts a connection in the queue of those that may send, or among the timers, as it asks.
    fn schedule(&mut self, id: SocketId) {
        let Some(Socket::Tcp(Tcp { role: Role::Connection(connection), .. })) =
            self.sockets.get_mut(id.0)
        else {
            return;
        };
        connection.update_timeout();
        match self.links.poll_at(connection.link, self.now, &connection.set) {
            Some(at) if at > self.now => self.timers.at_latest(id, &mut connection.timer, at),
            Some(_) if !mem::replace(&mut connection.queued, true) => self.turn.push_back(id),
            Some(_) | None => {}
        }
    }

    /// Puts a socket in the queue of those that may send by `link`.
    pub(super) fn enqueue(&mut self, id: SocketId, link: LinkId) {
        let queued = match self.sockets.get_mut(id.0) {
            Some(Socket::Tcp(Tcp { role: Role::Connection(connection), .. })) => {
                &mut connection.queued
            }
            Some(Socket::Udp(udp)) => match udp.outlet(link) {
                Some(outlet) => &mut outlet.queued,
                None => return,
            },
            _ => return,
        };
        if !mem::replace(queued, true) {
            self.turn.push_back(id);
        }
    }

    fn timer_due(&mut self, id: SocketId) {
        match self.sockets.get_mut(id.0) {
            Some(Socket::Tcp(Tcp { role: Role::Connection(connection), .. })) => {
                connection.timer = None;
                let link = connection.link;
                self.enqueue(id, link);
            }
            Some(Socket::Udp(udp)) => {
                udp.timer = None;
                for link in [LinkId::Loopback, LinkId::Ethernet] {
                    self.enqueue(id, link);
                }
            }
            _ => {}
        }
    }

    /// Lets those send that may, one packet each in turn. Whether anything was sent.
    fn egress(&mut self, left: &mut usize) -> bool {
        let mut any = false;
        let mut waiting = Vec::new();
        if !self.links.egress_parts(LinkId::Ethernet, self.now) {
            return false;
        }
        while *left > 0
            && let Some(id) = self.turn.pop_front()
        {
            let sent = match self.sockets.get_mut(id.0) {
                Some(Socket::Tcp(Tcp { role: Role::Connection(_), .. })) => self.tcp_turn(id),
                Some(Socket::Udp(_)) => self.udp_turn(id),
                _ => continue,
            };
            match sent {
                Sent::Packet => {
                    *left -= 1;
                    any = true;
                }
                Sent::Nothing => {}
                Sent::Full => waiting.push(id),
            }
        }
        self.turn.extend(waiting);
        any
    }

    fn tcp_turn(&mut self, id: SocketId) -> Sent {
        let Some(Socket::Tcp(Tcp { role: Role::Connection(connection), .. })) =
            self.sockets.get_mut(id.0)
        else {
            return Sent::Nothing;
        };
        let link = connection.link;
        let wanted =
            self.links.poll_at(link, self.now, &connection.set).is_some_and(|at| at <= self.now);
        if !wanted {
            connection.queued = false;
            self.look_at(id, Cause::Turn);
            return Sent::Nothing;
        }
        let sent = self.links.egress(link, self.now, &mut connection.set);
        if sent == Sent::Full {
            return sent; // And stays in the queue.
        }
        connection.queued = false;
        if sent == Sent::Packet {
            connection.stuck_since = None;
        } else {
            let again = self.links.poll_at(link, self.now, &connection.set);
            if again.is_some_and(|at| at <= self.now) {
                self.timers.at_latest(id, &mut connection.timer, self.now + RETRY);
                return sent;
            }
            if again.is_some() && connection.socket().state() != State::Closed {
                let since = *connection.stuck_since.get_or_insert(self.now);
                let connecting = connection.phase == Phase::Connecting;
                self.stuck.insert(id);
                if connecting && self.now >= since + NEIGHBOR_TIMEOUT {
                    self.connection_failed(id, Error::HostUnreachable);
                    return sent;
                }
            }
        }
        self.look_at(id, Cause::Turn);
        sent
    }

    fn udp_turn(&mut self, id: SocketId) -> Sent {
        let mut result = Sent::Nothing;
        for link in [LinkId::Loopback, LinkId::Ethernet] {
            let Some(Socket::Udp(udp)) = self.sockets.get_mut(id.0) else { return result };
            let Some(outlet) = udp.outlet(link) else { continue };
            if !mem::replace(&mut outlet.queued, false) {
                continue;
            }
            let sent = self.links.egress(link, self.now, &mut outlet.set);
            if sent == Sent::Packet {
                outlet.stuck_since = None;
                result = sent;
            }
            // What is too long for one packet goes out to its end before anything else does.
            let whole = self.links.egress_parts(link, self.now);
            match self.links.poll_at(link, self.now, &outlet.set) {
                _ if sent == Sent::Full || !whole => {
                    outlet.queued = true;
                    result = Sent::Full;
                }
                None => self.touch(id),
                Some(at) if at <= self.now && sent == Sent::Packet => {
                    outlet.queued = true;
                    self.turn.push_back(id);
                }
                Some(at) => {
                    let since = *outlet.stuck_since.get_or_insert(self.now);
                    if self.now >= since + NEIGHBOR_TIMEOUT {
                        udp.give_up(link);
                        self.touch(id);
                    } else {
                        let at = at.max(self.now + RETRY);
                        self.timers.at_latest(id, &mut udp.timer, at);
                        self.stuck.insert(id);
                    }
                }
            }
        }
        result
    }
}

/// smoltcp counts microseconds.
fn instant(ns: u64) -> Instant {
    Instant::from_micros((ns / 1000) as i64)
}
