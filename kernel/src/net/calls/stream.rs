//! Connections: opening and accepting them.

use crate::drivers::NetDevice;
use crate::net::{
    Error, LinkId, SocketId,
    connection_state::Cause,
    stack::Stack,
    tcp::{Connection, Listener, Phase, Role},
};
use alloc::{boxed::Box, collections::VecDeque};
use core::net::{Ipv4Addr, SocketAddrV4};
use smoltcp::{
    socket::tcp::State,
    wire::{IpAddress, IpEndpoint, IpListenEndpoint},
};

/// Longest backlog, as on Linux.
const BACKLOG_MAX: usize = 4096;

impl<D: NetDevice> Stack<D> {
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

    pub(super) fn connect_stream(&mut self, id: SocketId, to: SocketAddrV4) -> Result<(), Error> {
        // As elsewhere, "any address" is this guest.
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
                    // Nor may it connect to itself, or meet what a connection within the guest has
                    // left at its other end.
                    local != to
                        && !connections.contains_key(&(local, to))
                        && !connections.contains_key(&(to, local))
                })?
            }
        };
        let local = SocketAddrV4::new(source, port);
        if self.connections.contains_key(&(local, to)) {
            return Err(Error::AddressInUse);
        }
        if !self.links.is_there(link) {
            return Err(Error::NetworkUnreachable);
        }
        // A listener in this guest cannot report that it has no memory for its end: the attempt
        // would go on for minutes.
        let ends = if link == LinkId::Loopback { 2 } else { 1 };
        let size = self.budget.take(ends, self.has_room)?;
        let Some(mut connection) = Connection::new(link, local, to, Phase::Connecting, size) else {
            self.budget.give_back(size);
            return Err(Error::NoMemory);
        };
        connection.apply(&options);
        let from = IpListenEndpoint { addr: Some(IpAddress::Ipv4(source)), port };
        let remote = IpEndpoint::new(IpAddress::Ipv4(ip), to.port());
        let first = self.sequence.first(self.now, local, to);
        let context = self.opener.context(first, self.now);
        if connection.socket_mut().connect(context, remote, from).is_err() {
            self.budget.give_back(size);
            return Err(Error::Invalid);
        }
        connection.seen = State::SynSent;
        self.connections.insert((local, to), id);
        self.tcp(id)?.role = Role::Connection(Box::new(connection));
        self.update(id, Cause::Call);
        Err(Error::InProgress)
    }

    /// The result of an attempt to connect; [`Error::InProgress`] while it goes on.
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

    pub(super) fn orphan(&mut self, id: SocketId, reset: bool) {
        if let Some(connection) = self.connection(id) {
            connection.orphan(reset);
            self.update(id, Cause::Call);
        }
    }
}
