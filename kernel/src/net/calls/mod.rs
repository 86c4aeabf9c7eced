//! What a program does with sockets. Nothing here waits: on [`Error::WouldBlock`] the caller may.

mod datagram;
mod stream;

use super::{
    Error, LinkId, Options, Ready, SocketId,
    connection_state::Cause,
    stack::{Socket, Stack},
    tcp::{Phase, Role, Tcp},
    udp::Udp,
};
use crate::drivers::NetDevice;
use core::{
    mem,
    net::{Ipv4Addr, SocketAddrV4},
};
use smoltcp::socket::tcp::State;

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
    /// [`Error::AddressInUse`], [`Error::AddressNotAvailable`], or [`Error::Invalid`] when it is
    /// bound already.
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
        // What has arrived before an error is returned first.
        if error.is_some() && !matches!(received, Ok(1..)) {
            tcp.error = None;
            return Err(error.unwrap_or(Error::ConnectionReset));
        }
        if received.is_ok() && !peek {
            self.update(id, Cause::Call);
        }
        received
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
            self.update(id, Cause::Call);
        }
        sent
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
                    self.update(id, Cause::Call);
                }
                _ => return Err(Error::NotConnected),
            },
            None => return Err(Error::Invalid),
        }
        Ok(())
    }

    /// The program closes it. What it has sent still arrives, or at least leaves.
    pub fn close(&mut self, id: SocketId) {
        let Some(Socket::Tcp(tcp)) = self.sockets.get_mut(id.0) else {
            self.close_datagram(id);
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
                let half_open = |(_, socket): &(u32, &Socket)| match socket {
                    Socket::Tcp(Tcp { role: Role::Connection(c), .. }) => {
                        c.phase == Phase::HalfOpen(id)
                    }
                    _ => false,
                };
                let half_open: alloc::vec::Vec<_> =
                    self.sockets.iter().filter(half_open).map(|(n, _)| SocketId(n)).collect();
                for embryo in half_open {
                    self.orphan(embryo, true);
                }
            }
            Role::Connection(_) => {
                // Its port is free for others to bind: both its addresses identify the connection.
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

    /// The pending error, which this clears.
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
                    self.update(id, Cause::Call);
                }
            }
            Some(Socket::Udp(udp)) => change(&mut udp.options),
            None => {}
        }
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
}
