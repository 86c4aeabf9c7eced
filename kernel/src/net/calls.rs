//! What a program does with sockets. Nothing here waits: [`Error::WouldBlock`] says that the caller may.

use super::{
    Error, LinkId, Options, Ready, SocketId,
    device::NetDevice,
    stack::{Cause, Socket, Stack},
    tcp::{Connection, Listener, Phase, Role, Tcp},
    udp::Udp,
};
use alloc::{boxed::Box, collections::VecDeque};
use core::{
    mem,
    net::{Ipv4Addr, SocketAddrV4},
};
use smoltcp::{
    socket::tcp::State,
    wire::{IpAddress, IpEndpoint, IpListenEndpoint},
};

/// Longest backlog, as on Linux.
const BACKLOG_MAX: usize = 4096;

/// Which kind of socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// TCP.
    Stream,
    /// UDP.
    Datagram,
}

/// Which directions of a socket to close.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shutdown {
    /// Nothing more is received.
    pub read: bool,
    /// Nothing more is sent.
    pub write: bool,
}

impl<D: NetDevice> Stack<D> {
    /// A new socket.
    pub fn socket(&mut self, kind: Kind) -> SocketId {
        SocketId(self.sockets.insert(match kind {
            Kind::Stream => Socket::Tcp(Tcp::default()),
            Kind::Datagram => Socket::Udp(Udp::default()),
        }))
    }

    fn tcp(&mut self, id: SocketId) -> Result<&mut Tcp, Error> {
        match self.sockets.get_mut(id.0) {
            Some(Socket::Tcp(tcp)) => Ok(tcp),
            _ => Err(Error::NotSupported),
        }
    }

    /// Its kind.
    pub fn kind(&self, id: SocketId) -> Kind {
        match self.sockets.get(id.0) {
            Some(Socket::Udp(_)) => Kind::Datagram,
            _ => Kind::Stream,
        }
    }

    fn is_local(&self, ip: Ipv4Addr) -> bool {
        ip.is_loopback() || Some(ip) == self.ip
    }

    /// By which link to reach `to`, and from which address.
    fn route(&self, to: Ipv4Addr) -> Result<(LinkId, Ipv4Addr), Error> {
        if to.is_loopback() {
            return Ok((LinkId::Loopback, Ipv4Addr::LOCALHOST));
        }
        let ip = self.ip.ok_or(Error::NetworkUnreachable)?;
        let link = if to == ip { LinkId::Loopback } else { LinkId::Ethernet };
        Ok((link, ip))
    }

    /// Binds it to an address; port 0 for any that is free.
    ///
    /// # Errors
    /// [`Error::AddressInUse`], [`Error::AddressNotAvailable`], or [`Error::Invalid`] when it is bound already.
    pub fn bind(&mut self, id: SocketId, to: SocketAddrV4) -> Result<(), Error> {
        let ip = *to.ip();
        let datagram_group = ip.is_broadcast() || ip.is_multicast();
        if !(ip.is_unspecified() || self.is_local(ip) || datagram_group) {
            return Err(Error::AddressNotAvailable);
        }
        match self.sockets.get_mut(id.0) {
            Some(Socket::Tcp(tcp)) => {
                if tcp.bound.is_some() || !matches!(tcp.role, Role::None) || datagram_group {
                    return Err(Error::Invalid);
                }
                let port = self.tcp_ports.bind(id, to, tcp.options.reuse_address)?;
                tcp.bound = Some(SocketAddrV4::new(ip, port));
            }
            Some(Socket::Udp(udp)) => {
                if udp.bound.is_some() {
                    return Err(Error::Invalid);
                }
                let port = self.udp_ports.bind(id, to, udp.options.reuse_address)?;
                udp.bound = Some(SocketAddrV4::new(ip, port));
            }
            None => return Err(Error::Invalid),
        }
        Ok(())
    }

    /// Lets it accept connections, of which `backlog` may wait.
    ///
    /// # Errors
    /// [`Error::AddressInUse`], or [`Error::Invalid`] for a connected one.
    pub fn listen(&mut self, id: SocketId, backlog: usize) -> Result<(), Error> {
        let backlog = backlog.clamp(1, BACKLOG_MAX);
        let tcp = self.tcp(id)?;
        match &mut tcp.role {
            Role::Listener(listener) => {
                listener.backlog = backlog;
                return Ok(());
            }
            Role::Connection(_) => return Err(Error::Invalid),
            Role::None => {}
        }
        if tcp.bound.is_none() {
            self.bind(id, SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0))?;
        }
        let port = self.tcp(id)?.bound.ok_or(Error::Invalid)?.port();
        self.tcp_ports.listen(id, port)?;
        self.tcp(id)?.role =
            Role::Listener(Listener { backlog, half_open: 0, queue: VecDeque::new() });
        Ok(())
    }

    /// The next connection that waits, and its other end.
    ///
    /// # Errors
    /// [`Error::WouldBlock`], or [`Error::Invalid`] for one that does not listen.
    pub fn accept(&mut self, id: SocketId) -> Result<(SocketId, SocketAddrV4), Error> {
        let Role::Listener(listener) = &mut self.tcp(id)?.role else { return Err(Error::Invalid) };
        let accepted = listener.queue.pop_front().ok_or(Error::WouldBlock)?;
        let connection = self.connection(accepted).ok_or(Error::ConnectionAborted)?;
        connection.phase = Phase::Open;
        Ok((accepted, connection.remote))
    }

    /// Connects it to `to`. A TCP socket has then only begun to: [`Error::InProgress`].
    ///
    /// # Errors
    /// Why it cannot be, or [`Error::InProgress`].
    pub fn connect(&mut self, id: SocketId, to: SocketAddrV4) -> Result<(), Error> {
        match self.kind(id) {
            Kind::Stream => self.connect_stream(id, to),
            Kind::Datagram => self.connect_datagram(id, Some(to)),
        }
    }

    fn connect_stream(&mut self, id: SocketId, to: SocketAddrV4) -> Result<(), Error> {
        // As elsewhere, "any address" is this machine.
        let ip = if to.ip().is_unspecified() { Ipv4Addr::LOCALHOST } else { *to.ip() };
        let to = SocketAddrV4::new(ip, to.port());
        let tcp = self.tcp(id)?;
        match &tcp.role {
            Role::None => {}
            Role::Listener(_) => return Err(Error::IsConnected),
            Role::Connection(connection) if connection.phase == Phase::Connecting => {
                return Err(Error::Already);
            }
            Role::Connection(_) => return Err(Error::IsConnected),
        }
        if let Some(error) = tcp.error.take() {
            return Err(error);
        }
        let (bound, options) = (tcp.bound, tcp.options);
        if to.port() == 0 {
            return Err(Error::ConnectionRefused);
        }
        if ip.is_broadcast() || ip.is_multicast() {
            return Err(Error::NetworkUnreachable);
        }
        let (link, source) = self.route(ip)?;
        let source = match bound {
            Some(bound) if !bound.ip().is_unspecified() => *bound.ip(),
            _ => source,
        };
        if link == LinkId::Ethernet && source.is_loopback() {
            return Err(Error::NetworkUnreachable);
        }
        let port = match bound {
            Some(bound) => bound.port(),
            None => {
                let connections = &self.connections;
                self.tcp_ports.ephemeral(|port| {
                    let local = SocketAddrV4::new(source, port);
                    // Nor may it meet itself.
                    local != to && !connections.contains_key(&(local, to))
                })?
            }
        };
        let local = SocketAddrV4::new(source, port);
        if self.connections.contains_key(&(local, to)) {
            return Err(Error::AddressInUse);
        }
        let context = self.links.context(link).ok_or(Error::NetworkUnreachable)?;
        let size = self.budget.take(self.has_room)?;
        let Some(mut connection) = Connection::new(link, local, to, Phase::Connecting, size) else {
            self.budget.give_back(size);
            return Err(Error::NoMemory);
        };
        connection.apply(&options);
        let from = IpListenEndpoint { addr: Some(IpAddress::Ipv4(source)), port };
        let remote = IpEndpoint::new(IpAddress::Ipv4(ip), to.port());
        if connection.socket_mut().connect(context, remote, from).is_err() {
            self.budget.give_back(size);
            return Err(Error::Invalid);
        }
        connection.seen = State::SynSent;
        self.connections.insert((local, to), id);
        self.tcp(id)?.role = Role::Connection(Box::new(connection));
        self.look_at(id, Cause::Call);
        Err(Error::InProgress)
    }

    /// How an attempt to connect stands; [`Error::InProgress`] while it goes on.
    ///
    /// # Errors
    /// Why it failed.
    pub fn connect_result(&mut self, id: SocketId) -> Result<(), Error> {
        let tcp = self.tcp(id)?;
        match &tcp.role {
            Role::Connection(c) if c.phase == Phase::Connecting => Err(Error::InProgress),
            Role::Connection(_) => Ok(()),
            _ => Err(tcp.error.take().unwrap_or(Error::NotConnected)),
        }
    }

    /// Fixes the peer of a UDP socket, or lets go of it.
    ///
    /// # Errors
    /// When there is no way there.
    pub fn connect_datagram(
        &mut self,
        id: SocketId,
        to: Option<SocketAddrV4>,
    ) -> Result<(), Error> {
        if let Some(to) = to {
            let (_, source) = self.route(*to.ip())?;
            self.bind_for_sending(id, source)?;
        }
        match self.sockets.get_mut(id.0) {
            Some(Socket::Udp(udp)) => udp.peer = to,
            _ => return Err(Error::NotSupported),
        }
        Ok(())
    }

    fn bind_for_sending(&mut self, id: SocketId, source: Ipv4Addr) -> Result<(), Error> {
        let unbound =
            matches!(self.sockets.get(id.0), Some(Socket::Udp(udp)) if udp.bound.is_none());
        if unbound { self.bind(id, SocketAddrV4::new(source, 0)) } else { Ok(()) }
    }

    /// Receives into `to`; for a stream, 0 is its end.
    ///
    /// # Errors
    /// [`Error::WouldBlock`], or why nothing will come.
    pub fn receive(&mut self, id: SocketId, to: &mut [u8], peek: bool) -> Result<usize, Error> {
        if self.kind(id) == Kind::Datagram {
            return Ok(self.receive_from(id, to, peek)?.0);
        }
        let tcp = self.tcp(id)?;
        let error = tcp.error;
        let Role::Connection(connection) = &mut tcp.role else {
            return Err(tcp.error.take().unwrap_or(Error::NotConnected));
        };
        let received = connection.receive(to, peek);
        // What has arrived before an error is worth having first.
        if error.is_some() && !matches!(received, Ok(1..)) {
            tcp.error = None;
            return Err(error.unwrap_or(Error::ConnectionReset));
        }
        if received.is_ok() && !peek {
            self.look_at(id, Cause::Call);
        }
        received
    }

    /// Receives a datagram into `to`: how much was kept of it, and who sent it (nobody, for a stream or at its end).
    ///
    /// # Errors
    /// [`Error::WouldBlock`], or an error that a former datagram brought.
    pub fn receive_from(
        &mut self,
        id: SocketId,
        to: &mut [u8],
        peek: bool,
    ) -> Result<(usize, Option<SocketAddrV4>), Error> {
        let udp = match self.sockets.get_mut(id.0) {
            Some(Socket::Udp(udp)) => udp,
            _ => return Ok((self.receive(id, to, peek)?, None)),
        };
        if let Some(error) = udp.error.take() {
            return Err(error);
        }
        let received = udp.receive(peek, |datagram| {
            let n = datagram.data.len().min(to.len());
            to[..n].copy_from_slice(&datagram.data[..n]);
            (n, Some(datagram.from))
        })?;
        Ok(received.unwrap_or((0, None)))
    }

    /// Sends `from` to the peer: all of a datagram, or of a stream what its buffer takes.
    ///
    /// # Errors
    /// [`Error::WouldBlock`], or why it cannot be.
    pub fn send(&mut self, id: SocketId, from: &[u8]) -> Result<usize, Error> {
        if self.kind(id) == Kind::Datagram {
            return self.send_to(id, from, None);
        }
        let tcp = self.tcp(id)?;
        if let Some(error) = tcp.error.take() {
            return Err(error);
        }
        let Role::Connection(connection) = &mut tcp.role else {
            return Err(match tcp.role {
                Role::None if tcp.bound.is_none() => Error::BrokenPipe,
                _ => Error::NotConnected,
            });
        };
        let sent = connection.send(from);
        if sent.is_ok() {
            self.look_at(id, Cause::Call);
        }
        sent
    }

    /// Sends a datagram to `to`, or to the peer it is connected to.
    ///
    /// # Errors
    /// [`Error::WouldBlock`], or why it cannot be.
    pub fn send_to(
        &mut self,
        id: SocketId,
        from: &[u8],
        to: Option<SocketAddrV4>,
    ) -> Result<usize, Error> {
        let udp = match self.sockets.get_mut(id.0) {
            Some(Socket::Udp(udp)) => udp,
            _ if to.is_some() => return Err(Error::IsConnected),
            _ => return self.send(id, from),
        };
        if let Some(error) = udp.error.take() {
            return Err(error);
        }
        let to = to.or(udp.peer).ok_or(Error::DestinationRequired)?;
        let ip = if to.ip().is_unspecified() { Ipv4Addr::LOCALHOST } else { *to.ip() };
        let to = SocketAddrV4::new(ip, to.port());
        if to.port() == 0 {
            return Err(Error::Invalid);
        }
        let (link, source) = self.route(ip)?;
        self.bind_for_sending(id, Ipv4Addr::UNSPECIFIED)?;
        let parts_max = self.parts_max(link);
        let Some(Socket::Udp(udp)) = self.sockets.get_mut(id.0) else { return Err(Error::Invalid) };
        let bound = udp.bound.map_or(Ipv4Addr::UNSPECIFIED, |b| *b.ip());
        let source = if self.ip == Some(bound) || bound.is_loopback() { bound } else { source };
        if link == LinkId::Ethernet && source.is_loopback() {
            return Err(Error::Invalid);
        }
        if from.len() > parts_max {
            return Err(Error::MessageSize);
        }
        udp.send(link, source, to, from)?;
        self.enqueue(id, link);
        Ok(from.len())
    }

    /// Longest datagram that `link` takes, in one packet or in parts.
    fn parts_max(&mut self, link: LinkId) -> usize {
        /// smoltcp's buffer for datagrams that it sends in parts (`fragmentation-buffer-size`), and the headers in it.
        const PARTS_BUFFER: usize = 16_384;
        const HEADERS: usize = 28;
        self.links.mtu(link).max(PARTS_BUFFER) - HEADERS
    }

    /// Closes one direction, or both.
    ///
    /// # Errors
    /// [`Error::NotConnected`].
    pub fn shut_down(&mut self, id: SocketId, how: Shutdown) -> Result<(), Error> {
        match self.sockets.get_mut(id.0) {
            Some(Socket::Udp(udp)) => {
                udp.peer.ok_or(Error::NotConnected)?;
                udp.shut_down(how.read, how.write);
                self.touch(id);
            }
            Some(Socket::Tcp(tcp)) => match &mut tcp.role {
                Role::Connection(connection) if connection.phase != Phase::Connecting => {
                    if connection.socket().state() == State::Closed {
                        return Err(Error::NotConnected);
                    }
                    connection.shut_down(how.read, how.write);
                    self.look_at(id, Cause::Call);
                }
                _ => return Err(Error::NotConnected),
            },
            None => return Err(Error::Invalid),
        }
        Ok(())
    }

    /// The program lets go of it. What a stream has sent still arrives.
    pub fn close(&mut self, id: SocketId) {
        let Some(Socket::Tcp(tcp)) = self.sockets.get_mut(id.0) else {
            self.forget(id);
            return;
        };
        let (reset, bound) = (tcp.options.linger == Some(0), tcp.bound.take());
        match &mut tcp.role {
            Role::None => {}
            Role::Listener(listener) => {
                let queue = mem::take(&mut listener.queue);
                for waiting in queue {
                    self.orphan(waiting, true);
                }
                let half_open = |(_, socket): &(u32, &Socket)| matches!(socket, Socket::Tcp(Tcp { role: Role::Connection(c), .. }) if c.phase == Phase::HalfOpen(id));
                let half_open: alloc::vec::Vec<_> =
                    self.sockets.iter().filter(half_open).map(|(n, _)| SocketId(n)).collect();
                for embryo in half_open {
                    self.orphan(embryo, true);
                }
            }
            Role::Connection(_) => {
                // Its port is free for others to bind: the connection is known by both its ends.
                if let Some(bound) = bound {
                    self.tcp_ports.release(id, bound.port());
                }
                self.orphan(id, reset);
                return;
            }
        }
        if let Ok(tcp) = self.tcp(id) {
            tcp.bound = bound;
        }
        self.forget(id);
    }

    fn orphan(&mut self, id: SocketId, reset: bool) {
        if let Some(connection) = self.connection(id) {
            connection.orphan(reset);
            self.look_at(id, Cause::Call);
        }
    }

    /// Its own address.
    pub fn local_address(&self, id: SocketId) -> SocketAddrV4 {
        let none = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0);
        match self.sockets.get(id.0) {
            Some(Socket::Tcp(Tcp { role: Role::Connection(connection), .. })) => connection.local,
            Some(Socket::Tcp(tcp)) => tcp.bound.unwrap_or(none),
            Some(Socket::Udp(udp)) => udp.bound.unwrap_or(none),
            None => none,
        }
    }

    /// Its peer's address.
    ///
    /// # Errors
    /// [`Error::NotConnected`].
    pub fn peer_address(&self, id: SocketId) -> Result<SocketAddrV4, Error> {
        match self.sockets.get(id.0) {
            Some(Socket::Tcp(Tcp { role: Role::Connection(connection), .. }))
                if connection.phase == Phase::Open
                    && connection.socket().state() != State::Closed =>
            {
                Ok(connection.remote)
            }
            Some(Socket::Udp(Udp { peer: Some(peer), .. })) => Ok(*peer),
            _ => Err(Error::NotConnected),
        }
    }

    /// What it is ready for.
    pub fn ready(&self, id: SocketId) -> Ready {
        let (mut ready, error) = match self.sockets.get(id.0) {
            Some(Socket::Tcp(tcp)) => {
                let ready = match &tcp.role {
                    Role::None => Ready { writable: true, hung_up: true, ..Ready::default() },
                    Role::Listener(l) => {
                        Ready { readable: !l.queue.is_empty(), ..Ready::default() }
                    }
                    Role::Connection(connection) => connection.ready(),
                };
                (ready, tcp.error)
            }
            Some(Socket::Udp(udp)) => (udp.ready(), udp.error),
            None => return Ready { hung_up: true, ..Ready::default() },
        };
        if error.is_some() {
            (ready.error, ready.readable, ready.writable) = (true, true, true);
        }
        ready
    }

    /// The error that has not been told yet, which is told by this.
    pub fn take_error(&mut self, id: SocketId) -> Option<Error> {
        match self.sockets.get_mut(id.0)? {
            Socket::Tcp(tcp) => tcp.error.take(),
            Socket::Udp(udp) => udp.error.take(),
        }
    }

    /// Its options.
    pub fn options(&self, id: SocketId) -> Options {
        match self.sockets.get(id.0) {
            Some(Socket::Tcp(tcp)) => tcp.options,
            Some(Socket::Udp(udp)) => udp.options,
            None => Options::default(),
        }
    }

    /// Changes its options.
    pub fn set_options(&mut self, id: SocketId, change: impl FnOnce(&mut Options)) {
        match self.sockets.get_mut(id.0) {
            Some(Socket::Tcp(tcp)) => {
                change(&mut tcp.options);
                let options = tcp.options;
                if let Role::Connection(connection) = &mut tcp.role {
                    connection.apply(&options);
                    self.look_at(id, Cause::Call);
                }
            }
            Some(Socket::Udp(udp)) => change(&mut udp.options),
            None => {}
        }
    }

    /// Has the network device listen to a group's packets, or not any more.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what is no group, [`Error::NetworkUnreachable`] without a device.
    pub fn set_membership(&mut self, group: Ipv4Addr, join: bool) -> Result<(), Error> {
        if !group.is_multicast() {
            return Err(Error::Invalid);
        }
        let link = self.links.ethernet.as_mut().ok_or(Error::NetworkUnreachable)?;
        let iface = link.iface();
        let done = if join {
            iface.join_multicast_group(group)
        } else {
            iface.leave_multicast_group(group)
        };
        done.map_err(|_| Error::NoMemory)
    }

    /// Size of its buffers: what is received, and what is sent.
    pub fn buffer_sizes(&self, id: SocketId) -> usize {
        match self.sockets.get(id.0) {
            Some(Socket::Tcp(Tcp { role: Role::Connection(connection), .. })) => connection.buffer,
            _ => 64 << 10,
        }
    }

    /// Whether it accepts connections.
    pub fn listens(&self, id: SocketId) -> bool {
        matches!(self.sockets.get(id.0), Some(Socket::Tcp(Tcp { role: Role::Listener(_), .. })))
    }

    /// Whether, of the connections by `link` that programs have let go of, one still has something to send, or to be acknowledged.
    pub fn has_last_words(&self, link: LinkId) -> bool {
        self.sockets.iter().any(|(_, socket)| {
            let Socket::Tcp(Tcp { role: Role::Connection(connection), .. }) = socket else {
                return false;
            };
            let state = connection.socket().state();
            connection.link == link
                && connection.phase == Phase::Orphan
                && !connection.over()
                && !matches!(state, State::FinWait2 | State::TimeWait)
        })
    }
}
