//! TCP sockets: what they are, and what a program does with a connection.

use super::{Error, LinkId, Options, Ready, SocketId};
use alloc::{boxed::Box, collections::VecDeque, vec::Vec};
use core::{mem, net::SocketAddrV4};
use smoltcp::{
    iface::{SocketHandle, SocketSet},
    socket::tcp::{self, CongestionControl, State},
    time::{Duration, Instant},
    wire::TcpSeqNumber,
};

/// How long a connection attempt, or one that waits for its last acknowledgement, goes on: Linux's
/// six retries.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(127);
/// How long a peer may be silent while data waits for its acknowledgement.
const SEND_TIMEOUT: Duration = Duration::from_secs(924);
/// How long a connection remains that its program has closed.
const ORPHAN_TIMEOUT: Duration = Duration::from_secs(60);
/// Idle time after which a connection with keep-alive is probed.
const KEEP_ALIVE: Duration = Duration::from_secs(7200);

/// A TCP socket.
#[derive(Debug, Default)]
pub struct Tcp {
    pub options: Options,
    /// Where it is bound, and holds that port.
    pub bound: Option<SocketAddrV4>,
    pub role: Role,
    /// The pending error.
    pub error: Option<Error>,
}

/// What a TCP socket is for.
#[derive(Debug, Default)]
pub enum Role {
    /// Nothing yet, or nothing any more.
    #[default]
    None,
    /// It accepts connections.
    Listener(Listener),
    /// It is one end of a connection.
    Connection(Box<Connection>),
}

/// Where connections arrive.
#[derive(Debug)]
pub struct Listener {
    /// Most connections, half open or waiting to be accepted.
    pub backlog: usize,
    /// Half-open ones.
    pub half_open: usize,
    /// Open ones.
    pub queue: VecDeque<SocketId>,
}

/// How far along a connection is, from its owner's side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// This end opens it.
    Connecting,
    /// The peer opens it, by way of this listener.
    HalfOpen(SocketId),
    /// It waits to be accepted from this listener.
    Queued(SocketId),
    /// A program has it.
    Open,
    /// The program has closed it; it ends without the program.
    Orphan,
}

/// One end of a connection.
#[derive(Debug)]
pub struct Connection {
    pub set: SocketSet<'static>,
    handle: SocketHandle,
    pub link: LinkId,
    pub local: SocketAddrV4,
    pub remote: SocketAddrV4,
    pub phase: Phase,
    /// smoltcp's state when it was last checked.
    pub seen: State,
    /// It is in the TX queue.
    pub queued: bool,
    /// It is in the list of those in TIME-WAIT.
    pub waits: bool,
    /// Its entry among the timers.
    pub timer: Option<Instant>,
    /// Since when its neighbor has not been found.
    pub stuck_since: Option<Instant>,
    /// What the peer's last segment acknowledged, if it did nothing else.
    last_acknowledged: Option<TcpSeqNumber>,
    /// Size of each of its buffers.
    pub buffer: usize,
    read_shut: bool,
    write_shut: bool,
}

impl Connection {
    /// Not open yet, with buffers of `buffer` bytes each way. `None` without memory.
    pub fn new(
        link: LinkId,
        local: SocketAddrV4,
        remote: SocketAddrV4,
        phase: Phase,
        buffer: usize,
    ) -> Option<Self> {
        let new = || {
            let mut bytes = Vec::new();
            bytes.try_reserve_exact(buffer).ok()?;
            bytes.resize(buffer, 0);
            Some(tcp::SocketBuffer::new(bytes))
        };
        let mut socket = tcp::Socket::new(new()?, new()?);
        if link == LinkId::Ethernet {
            socket.set_congestion_control(CongestionControl::Reno);
        }
        socket.set_timeout(Some(CONNECT_TIMEOUT));
        let mut set = SocketSet::new(Vec::with_capacity(1));
        let handle = set.add(socket);
        Some(Self {
            set,
            handle,
            link,
            local,
            remote,
            phase,
            seen: State::Closed,
            queued: false,
            waits: false,
            timer: None,
            stuck_since: None,
            last_acknowledged: None,
            buffer,
            read_shut: false,
            write_shut: false,
        })
    }

    pub fn socket(&self) -> &tcp::Socket<'static> {
        self.set.get(self.handle)
    }

    pub fn socket_mut(&mut self) -> &mut tcp::Socket<'static> {
        self.set.get_mut(self.handle)
    }

    pub fn apply(&mut self, options: &Options) {
        let socket = self.socket_mut();
        socket.set_nagle_enabled(!options.no_delay);
        socket.set_keep_alive(options.keep_alive.then_some(KEEP_ALIVE));
        socket.set_hop_limit(Some(options.ttl));
    }

    /// Sets smoltcp's timeout to what this phase and what is under way ask for.
    pub fn update_timeout(&mut self) {
        let timeout = match self.phase {
            Phase::Connecting | Phase::HalfOpen(_) => Some(CONNECT_TIMEOUT),
            Phase::Orphan => Some(ORPHAN_TIMEOUT),
            Phase::Queued(_) | Phase::Open => {
                (self.socket().send_queue() > 0).then_some(SEND_TIMEOUT)
            }
        };
        self.socket_mut().set_timeout(timeout);
    }

    /// Nothing more will come from the peer.
    fn at_end(&self) -> bool {
        !matches!(
            self.socket().state(),
            State::SynSent
                | State::SynReceived
                | State::Established
                | State::FinWait1
                | State::FinWait2
        )
    }

    pub fn ready(&self) -> Ready {
        if self.phase == Phase::Connecting {
            return Ready::default();
        }
        let socket = self.socket();
        let end = self.at_end();
        let closed = socket.state() == State::Closed;
        Ready {
            readable: socket.can_recv() || end || self.read_shut,
            // As on Linux a third must be free: a writer that is woken for each segment
            // acknowledged gets little done.
            writable: !socket.may_send() || socket.send_queue() <= socket.send_capacity() / 3 * 2,
            peer_closed: end || self.read_shut,
            hung_up: closed || (end || self.read_shut) && self.write_shut,
            error: false,
        }
    }

    /// Receives into `to`; 0 at the end.
    pub fn receive(&mut self, to: &mut [u8], peek: bool) -> Result<usize, Error> {
        if self.phase == Phase::Connecting {
            return Err(Error::WouldBlock);
        }
        let (read_shut, end) = (self.read_shut, self.at_end());
        let socket = self.socket_mut();
        if socket.can_recv() {
            let received = if peek { socket.peek_slice(to) } else { socket.recv_slice(to) };
            return received.map_err(|_| Error::NotConnected);
        }
        if read_shut || end || to.is_empty() { Ok(0) } else { Err(Error::WouldBlock) }
    }

    /// Takes what fits of `from`.
    pub fn send(&mut self, from: &[u8]) -> Result<usize, Error> {
        if self.phase == Phase::Connecting {
            return Err(Error::WouldBlock);
        }
        if self.write_shut {
            return Err(Error::BrokenPipe);
        }
        let socket = self.socket_mut();
        match socket.send_slice(from) {
            Ok(0) if !from.is_empty() => Err(Error::WouldBlock),
            Ok(n) => Ok(n),
            Err(tcp::SendError::InvalidState) => Err(Error::BrokenPipe),
        }
    }

    pub fn shut_down(&mut self, read: bool, write: bool) {
        self.read_shut |= read;
        if write && !self.write_shut {
            self.write_shut = true;
            self.socket_mut().close();
        }
    }

    /// The program closes it: what it has sent still arrives, unless `reset`, or unless it left
    /// data unread.
    pub fn orphan(&mut self, reset: bool) {
        self.phase = Phase::Orphan;
        if reset || self.socket().recv_queue() > 0 {
            self.socket_mut().abort();
        } else {
            self.socket_mut().close();
        }
    }

    /// Whether a segment that only acknowledges `now` repeats the last one, while only our FIN is
    /// under way.
    ///
    /// Such segments are kept from smoltcp: after three it would try a fast retransmission, for
    /// which it has no data, and its timer would be gone, so that a lost FIN would never be sent
    /// again.
    pub fn is_idle_repetition(&mut self, now: Option<TcpSeqNumber>) -> bool {
        let before = mem::replace(&mut self.last_acknowledged, now);
        let socket = self.socket();
        now.is_some()
            && now == before
            && matches!(socket.state(), State::FinWait1 | State::Closing | State::LastAck)
            && socket.send_queue() == 0
    }

    /// Whether a peer that opens a connection with the same ports has forgotten this one: it is
    /// over, or only our FIN is under way, which such a peer ignores. smoltcp would not answer it.
    pub fn is_forgotten_by_peer(&self) -> bool {
        self.phase == Phase::Orphan
            && match self.socket().state() {
                State::TimeWait => true,
                State::LastAck => self.socket().send_queue() == 0,
                _ => false,
            }
    }

    /// Whether there is nothing left to be done for it.
    pub fn over(&self) -> bool {
        let socket = self.socket();
        socket.state() == State::Closed && socket.remote_endpoint().is_none()
    }
}
