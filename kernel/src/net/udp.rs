//! UDP sockets.
//!
//! What is received is kept as it comes, so that an idle socket holds no buffer. What is sent goes
//! through one smoltcp socket a link, which finds the neighbor, cuts what is too long, and keeps
//! what cannot be sent yet.

use super::{Error, LinkId, Options, Ready};
use alloc::{boxed::Box, collections::VecDeque, vec, vec::Vec};
use core::net::{Ipv4Addr, SocketAddrV4};
use smoltcp::{
    iface::{SocketHandle, SocketSet},
    phy::PacketMeta,
    socket::udp,
    time::Instant,
    wire::{IpAddress, IpEndpoint},
};

/// Longest datagram.
pub const DATAGRAM_MAX: usize = 65_507;
/// What is kept for a socket whose program does not receive, with [`OVERHEAD`] for each datagram.
const RECEIVE_MAX: usize = 128 << 10;
const OVERHEAD: usize = 64;
/// What a socket keeps at most that cannot be sent yet, and at least has room for once it has sent
/// something, bytes.
const SEND_MAX: usize = 68 << 10;
const SEND_MIN: usize = 2 << 10;
const DATAGRAMS_MAX: usize = 32;

/// A datagram that has arrived.
#[derive(Debug)]
pub struct Datagram {
    /// The sender.
    pub from: SocketAddrV4,
    /// What is in it.
    pub data: Box<[u8]>,
}

/// A UDP socket.
#[derive(Debug, Default)]
pub struct Udp {
    pub options: Options,
    /// Where it is bound, and holds that port.
    pub bound: Option<SocketAddrV4>,
    /// Its peer, if it is connected.
    pub peer: Option<SocketAddrV4>,
    /// The pending error.
    pub error: Option<Error>,
    received: VecDeque<Datagram>,
    received_bytes: usize,
    /// Its entry among the timers.
    pub timer: Option<Instant>,
    /// By [`LinkId`].
    outlets: [Option<Outlet>; 2],
    read_shut: bool,
    write_shut: bool,
    /// The program has closed it; it stays until what was sent has left.
    pub closed: bool,
}

/// The way out by one link.
#[derive(Debug)]
pub struct Outlet {
    pub set: SocketSet<'static>,
    handle: SocketHandle,
    room: usize,
    /// It holds datagrams that have not left, empty ones too: smoltcp counts only their bytes.
    pub pending: bool,
    /// It is in the TX queue.
    pub queued: bool,
    /// Since when a neighbor has not been found.
    pub stuck_since: Option<Instant>,
}

impl Outlet {
    /// `None` without memory.
    fn new(room: usize, port: u16) -> Option<Self> {
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(room).ok()?;
        bytes.resize(room, 0);
        let none = udp::PacketBuffer::new(Vec::new(), Vec::new());
        let buffer =
            udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; DATAGRAMS_MAX], vec![0; room]);
        let mut socket = udp::Socket::new(none, buffer);
        socket.bind(port).expect("a new socket, and a port that is not 0");
        let mut set = SocketSet::new(Vec::with_capacity(1));
        let handle = set.add(socket);
        Some(Self { set, handle, room, pending: false, queued: false, stuck_since: None })
    }

    pub fn socket(&self) -> &udp::Socket<'static> {
        self.set.get(self.handle)
    }
}

impl Udp {
    pub fn outlet(&mut self, link: LinkId) -> Option<&mut Outlet> {
        self.outlets[link as usize].as_mut()
    }

    /// Drops what cannot be sent: the neighbor does not answer.
    pub fn drop_unreachable(&mut self, link: LinkId) {
        self.outlets[link as usize] = None;
        self.error = Some(Error::HostUnreachable);
    }

    /// Drops what has not left by `link`, without an error: the address that it is from is another
    /// guest's now.
    pub fn drop_unsent(&mut self, link: LinkId) {
        self.outlets[link as usize] = None;
    }

    pub fn ready(&self) -> Ready {
        Ready {
            readable: !self.received.is_empty() || self.read_shut,
            writable: !self.is_sending(),
            peer_closed: self.read_shut,
            hung_up: self.read_shut && self.write_shut,
            error: false,
        }
    }

    /// The program closes it, and what it has not received is dropped. Returns the port that is
    /// free now.
    pub fn close(&mut self) -> Option<u16> {
        self.closed = true;
        self.received = VecDeque::new();
        self.received_bytes = 0;
        Some(self.bound.take()?.port())
    }

    /// Whether something that was sent has not left.
    pub fn is_sending(&self) -> bool {
        self.outlets.iter().flatten().any(|outlet| outlet.pending)
    }

    /// Bytes of buffers that it holds for sending.
    pub fn send_room(&self) -> usize {
        self.outlets.iter().flatten().map(|outlet| outlet.room).sum()
    }

    /// Bytes that were sent by `link` and have not left, and one more if there is anything.
    pub fn unsent(&self, link: LinkId) -> usize {
        let outlet = self.outlets[link as usize].as_ref().filter(|outlet| outlet.pending);
        outlet.map_or(0, |outlet| outlet.socket().send_queue() + 1)
    }

    /// How well a datagram fits this socket; `None`: not at all.
    pub fn fit(&self, from: SocketAddrV4, to: SocketAddrV4) -> Option<u8> {
        let bound = self.bound?;
        let address = match *bound.ip() {
            ip if ip == *to.ip() => 1,
            ip if ip.is_unspecified() => 0,
            _ => return None,
        };
        match self.peer {
            Some(peer) if peer == from => Some(2 + address),
            Some(_) => None,
            None => Some(address),
        }
    }

    /// Keeps a datagram for the program, if there is room.
    pub fn deliver(&mut self, from: SocketAddrV4, data: &[u8]) {
        if self.read_shut || self.received_bytes > RECEIVE_MAX {
            return;
        }
        // Without memory it is lost, as datagrams may be.
        let mut copy = Vec::new();
        if self.received.try_reserve(1).is_err() || copy.try_reserve_exact(data.len()).is_err() {
            return;
        }
        copy.extend_from_slice(data);
        self.received_bytes += data.len() + OVERHEAD;
        self.received.push_back(Datagram { from, data: copy.into_boxed_slice() });
    }

    /// Calls `f` with the first datagram, and drops that unless `peek`.
    pub fn receive<R>(
        &mut self,
        peek: bool,
        f: impl FnOnce(&Datagram) -> R,
    ) -> Result<Option<R>, Error> {
        let Some(first) = self.received.front() else {
            return if self.read_shut { Ok(None) } else { Err(Error::WouldBlock) };
        };
        let result = f(first);
        if !peek && let Some(gone) = self.received.pop_front() {
            self.received_bytes -= gone.data.len() + OVERHEAD;
            if self.received.is_empty() {
                self.received = VecDeque::new();
            }
        }
        Ok(Some(result))
    }

    /// Queues a datagram for `to`, to go out by `link` from `source`.
    pub fn send(
        &mut self,
        link: LinkId,
        source: Ipv4Addr,
        to: SocketAddrV4,
        data: &[u8],
    ) -> Result<(), Error> {
        if self.write_shut {
            return Err(Error::BrokenPipe);
        }
        if data.len() > DATAGRAM_MAX {
            return Err(Error::MessageSize);
        }
        let port = self.bound.ok_or(Error::Invalid)?.port();
        let ttl = self.options.ttl;
        let slot = &mut self.outlets[link as usize];
        if slot.as_ref().is_none_or(|o| !o.pending && o.room < data.len()) {
            let queued = slot.as_ref().is_some_and(|o| o.queued);
            let room = (2 * data.len()).clamp(SEND_MIN, SEND_MAX);
            let new = Outlet::new(room, port).ok_or(Error::NoMemory)?;
            *slot = Some(Outlet { queued, ..new });
        }
        let outlet = slot.as_mut().ok_or(Error::NoMemory)?;
        let socket: &mut udp::Socket<'_> = outlet.set.get_mut(outlet.handle);
        socket.set_hop_limit(Some(ttl));
        let meta = udp::UdpMetadata {
            endpoint: IpEndpoint::new(IpAddress::Ipv4(*to.ip()), to.port()),
            local_address: Some(IpAddress::Ipv4(source)),
            meta: PacketMeta::default(),
        };
        socket.send_slice(data, meta).map_err(|e| match e {
            udp::SendError::BufferFull => Error::WouldBlock,
            udp::SendError::Unaddressable => Error::Invalid,
        })?;
        outlet.pending = true;
        Ok(())
    }

    pub fn shut_down(&mut self, read: bool, write: bool) {
        self.read_shut |= read;
        self.write_shut |= write;
    }
}
