//! Datagrams.

use crate::drivers::NetDevice;
use crate::net::{
    Error, LinkId, SocketId,
    stack::{Socket, Stack},
};
use core::net::{Ipv4Addr, SocketAddrV4};

impl<D: NetDevice> Stack<D> {
    /// Sets the peer of a UDP socket, or removes it.
    ///
    /// # Errors
    /// When there is no route.
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

    /// Receives a datagram into `to`: how much was kept of it, and its sender (`None` for a stream
    /// or at its end).
    ///
    /// # Errors
    /// [`Error::WouldBlock`], or the error of an earlier datagram.
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
        /// smoltcp's buffer for datagrams that it sends in parts (`fragmentation-buffer-size`), and
        /// the headers
        /// in it.
        const PARTS_BUFFER: usize = 16_384;
        const HEADERS: usize = 28;
        self.links.mtu(link).max(PARTS_BUFFER) - HEADERS
    }

    /// Has the network device receive a group's packets, or not any more.
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
}
