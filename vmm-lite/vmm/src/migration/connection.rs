//! Messages over TCP, encrypted or not.

use super::{
    Error,
    address::Address,
    inbox::Inbox,
    reach::reach,
    tls::{Credentials, Tls, TlsError},
};
use crate::host::poll::wait_readable;
use crate::vm::CallOff;
use crate::{host::watchdog::waits, identity::PublicKey};
use migrate::{
    Peer,
    wire::{HEADER_SIZE, Header, Kind, Message, PageFrame, WireError, decode},
};
use nix::sys::socket::{MsgFlags, recv};
use std::{
    io::{self, Write},
    net::TcpStream,
    os::fd::{AsRawFd, RawFd},
    sync::Arc,
    time::{Duration, Instant},
};

/// Longest first message, header and body: a hello or a question. Until it has come, no more is
/// held for a peer.
const FIRST_MAX: usize = HEADER_SIZE + 64;
/// Bytes read ahead, where fewer are needed. Short messages that follow each other come by one
/// read.
const AHEAD: usize = 16 << 10;

/// What went wrong on a link.
#[derive(thiserror::Error, Debug)]
pub enum LinkError {
    /// Nobody there.
    #[error("cannot reach {to}; does `vmm-lite receive --listen {to}` run there?")]
    Unreachable {
        /// Where.
        to: Address,
        /// What the network says.
        source: io::Error,
    },
    /// The network.
    #[error("the connection failed")]
    Io(#[from] io::Error),
    /// The peer closed it.
    #[error("the peer closed the connection")]
    Closed,
    /// The peer stopped in the middle of a message.
    #[error("the peer fell silent, or became very slow, in the middle of a message")]
    Slow,
    /// What came is no message.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// What came first is too long to be a first message.
    #[error("the peer began with {0} bytes, which is neither a move nor a question")]
    First(usize),
    /// TLS where there should be none.
    #[error(
        "the peer speaks TLS and this side plaintext: leave --plaintext out here, or use it on \
         both sides"
    )]
    Encrypted,
    /// TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// It was not [wanted](CallOff) any more before it stood.
    #[error(transparent)]
    CalledOff(#[from] migrate::source::Failure),
}

/// How two hosts talk.
#[derive(Clone, Debug)]
pub enum Transport {
    /// So that whoever can reach the network can read and change it.
    Plaintext,
    /// Encrypted, each side sure of the other.
    Tls(Credentials),
}

/// A connection to a peer. Messages are whole or an error.
#[derive(Debug)]
pub struct Connection {
    stream: Arc<TcpStream>,
    tls: Option<Box<Tls>>,
    inbox: Inbox,
    /// Longest message taken, header included.
    most: usize,
    /// Whether the peer has closed its direction.
    closed: bool,
    timeout: Duration,
    sent: u64,
}

/// What came.
#[derive(Debug)]
pub enum Incoming<'a> {
    /// Pages, where they lie.
    Pages(PageFrame<'a>),
    /// Anything else.
    Message(Message),
}

impl Connection {
    /// Connects to the first address that answers, for as long as that is `wanted`; with `pinned`
    /// only to the host with that key. `timeout` is as in [`set_timeout`](Self::set_patience).
    ///
    /// # Errors
    /// [`Error::Address`], [`LinkError::Unreachable`], [`LinkError::Tls`],
    /// [`LinkError::CalledOff`].
    pub fn open(
        to: &Address,
        transport: &Transport,
        pinned: Peer,
        timeout: Duration,
        call_off: &CallOff,
    ) -> Result<Self, Error> {
        let stream = reach(&to.known()?, to.dialer(), call_off).map_err(|e| match e {
            LinkError::Io(source) => LinkError::Unreachable { to: to.clone(), source },
            e => e,
        })?;
        let mut connection = Self::over(Arc::new(stream), timeout)?;
        if let Transport::Tls(credentials) = transport {
            let pinned = pinned.map(PublicKey);
            let Self { stream, inbox, .. } = &mut connection;
            let tls = Tls::connect(stream, inbox, credentials, pinned, timeout, call_off)?;
            connection.tls = Some(Box::new(tls));
        }
        Ok(connection)
    }

    /// Takes a peer that has connected. Its first message must be short: see
    /// [`known`](Self::known).
    ///
    /// # Errors
    /// [`LinkError`].
    pub fn accept(
        stream: Arc<TcpStream>,
        transport: &Transport,
        timeout: Duration,
    ) -> Result<Self, LinkError> {
        let mut connection = Self::over(stream, timeout)?;
        connection.most = FIRST_MAX;
        if let Transport::Tls(credentials) = transport {
            let Self { stream, inbox, .. } = &mut connection;
            connection.tls = Some(Box::new(Tls::accept(stream, inbox, credentials, timeout)?));
        }
        Ok(connection)
    }

    fn over(stream: Arc<TcpStream>, timeout: Duration) -> Result<Self, LinkError> {
        // Messages are written whole: waiting for more to fill a segment only costs blackout.
        stream.set_nodelay(true)?;
        #[cfg(debug_assertions)]
        crate::fail_point::link(&stream);
        let (inbox, most) = (Inbox::default(), usize::MAX);
        let mut this = Self { stream, tls: None, inbox, most, closed: false, timeout, sent: 0 };
        this.set_timeout(timeout)?;
        Ok(this)
    }

    /// The peer has said who it is: from now on its messages may be as long as their kind allows.
    pub fn known(&mut self) {
        self.most = usize::MAX;
    }

    /// Who the peer has proved to be.
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.tls.as_ref()?.peer().map(|key| key.0)
    }

    /// The address of the other end, for people.
    #[must_use]
    pub fn other_end(&self) -> String {
        self.stream.peer_addr().map_or_else(|_| "its source".into(), |at| at.to_string())
    }

    /// The stream, to end the connection from elsewhere.
    #[must_use]
    pub fn stream(&self) -> Arc<TcpStream> {
        Arc::clone(&self.stream)
    }

    /// To be polled together with others. What was [read ahead](Self::has_buffered) does not make
    /// it readable.
    #[must_use]
    pub fn fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }

    /// Whether something has been read that was not received yet: whoever polls the descriptor
    /// looks here first.
    #[must_use]
    pub fn has_buffered(&self) -> bool {
        self.inbox.len() > 0 || self.closed
    }

    /// How long a write, or what is left of a message that has begun, may take before it is an
    /// error.
    ///
    /// # Errors
    /// [`LinkError::Io`].
    pub fn set_timeout(&mut self, timeout: Duration) -> Result<(), LinkError> {
        self.timeout = timeout.max(Duration::from_millis(1));
        self.stream.set_read_timeout(Some(self.timeout))?;
        Ok(self.stream.set_write_timeout(Some(self.timeout))?)
    }

    /// Sends a message.
    ///
    /// # Errors
    /// [`LinkError::Io`], [`LinkError::Tls`].
    pub fn send(&mut self, message: &Message) -> Result<(), LinkError> {
        self.send_raw(&message.encode())
    }

    /// Sends bytes that are whole messages.
    ///
    /// # Errors
    /// [`LinkError::Io`], [`LinkError::Tls`].
    pub fn send_raw(&mut self, bytes: &[u8]) -> Result<(), LinkError> {
        // For a peer that may take its time, up to the timeout.
        waits(|| match &mut self.tls {
            Some(tls) => tls.send(&self.stream, &mut self.inbox, bytes),
            None => Ok((&mut &*self.stream).write_all(bytes)?),
        })?;
        self.sent += bytes.len() as u64;
        Ok(())
    }

    /// Bytes that were sent and have not been acknowledged by the peer's host.
    #[must_use]
    pub fn unacknowledged(&self) -> u64 {
        let mut bytes: libc::c_int = 0;
        // SAFETY: the call fills the integer.
        let r = unsafe { libc::ioctl(self.fd(), libc::TIOCOUTQ, &raw mut bytes) };
        if r == 0 { u64::try_from(bytes).unwrap_or(0) } else { 0 }
    }

    /// Bytes of messages sent so far.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Waits until something can be received, at most that long. `false`: nothing came.
    ///
    /// # Errors
    /// [`LinkError`].
    pub fn wait(&mut self, timeout: Duration) -> Result<bool, LinkError> {
        let mut end = None;
        let mut left = timeout;
        while !self.has_buffered() {
            if !wait_readable(self.fd(), left).map_err(LinkError::Io)? {
                return Ok(false);
            }
            match self.fill(AHEAD, MsgFlags::MSG_DONTWAIT) {
                Ok(()) => {}
                // Whoever receives is told.
                Err(LinkError::Closed) => self.closed = true,
                Err(LinkError::Io(e)) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
            if !self.has_buffered() {
                // Part of a record, which is nothing yet.
                let end = *end.get_or_insert_with(|| Instant::now() + timeout);
                left = end.saturating_duration_since(Instant::now());
            }
        }
        Ok(true)
    }

    /// Waits without sleep until something can be received, or `end`: to be woken can take longer
    /// than what is waited for. `false`: nothing came.
    pub fn stay_awake(&mut self, end: Instant) -> bool {
        while Instant::now() < end {
            // An error is for whoever receives.
            if self.wait(Duration::ZERO).unwrap_or(true) {
                return true;
            }
            std::thread::yield_now();
        }
        false
    }

    /// Reads once.
    fn fill(&mut self, wanted: usize, flags: MsgFlags) -> Result<(), LinkError> {
        let fd = self.fd();
        let read = |room: &mut [u8]| loop {
            match waits(|| recv(fd, room, flags)) {
                Ok(0) => return Err(LinkError::Closed),
                Ok(n) => return Ok(n),
                Err(nix::Error::EINTR) => {}
                Err(e) => return Err(LinkError::Io(e.into())),
            }
        };
        match &mut self.tls {
            Some(tls) => tls.receive(&self.stream, &mut self.inbox, read),
            None => {
                let n = read(self.inbox.room(wanted))?;
                self.inbox.put(n);
                Ok(())
            }
        }
    }

    /// Fills the inbox up to `n` bytes.
    fn need(&mut self, n: usize) -> Result<(), LinkError> {
        let mut began = None;
        while self.inbox.len() < n {
            if self.closed {
                return Err(LinkError::Closed);
            }
            let missing = n - self.inbox.len();
            match self.fill(missing.max(AHEAD.min(self.most)), MsgFlags::empty()) {
                Err(LinkError::Io(e)) if e.kind() == io::ErrorKind::WouldBlock => {
                    return Err(LinkError::Slow);
                }
                filled => filled?,
            }
            // A peer that sends a byte now and then is as good as silent.
            let began = *began.get_or_insert_with(Instant::now);
            if self.inbox.len() < n && began.elapsed() > self.timeout {
                return Err(LinkError::Slow);
            }
        }
        Ok(())
    }

    /// Receives the next message. `pages` is the number of pages of the VM, 0 while there is none.
    ///
    /// # Errors
    /// [`LinkError`]; the connection is useless then.
    pub fn receive(&mut self, pages: usize) -> Result<Incoming<'_>, LinkError> {
        self.need(HEADER_SIZE)?;
        let (header, _) = self.inbox.bytes().split_at(HEADER_SIZE);
        let header: [u8; HEADER_SIZE] = header.try_into().expect("split at its size");
        if self.tls.is_none() && looks_like_tls(&header) {
            return Err(LinkError::Encrypted);
        }
        let header = Header::decode(&header)?;
        // Bounded by what the kind allows, whatever the peer announces.
        let size = HEADER_SIZE + header.length as usize;
        if size > self.most {
            return Err(LinkError::First(size));
        }
        self.need(size)?;
        let body = &self.inbox.take(size)[HEADER_SIZE..];
        if header.kind == Kind::Pages {
            if crc32fast::hash(body) != header.checksum {
                return Err(WireError::Checksum.into());
            }
            return Ok(Incoming::Pages(PageFrame::decode(body, pages)?));
        }
        Ok(Incoming::Message(decode(&header, body, pages)?))
    }
}

/// Whether this is how a TLS handshake begins.
fn looks_like_tls(bytes: &[u8; HEADER_SIZE]) -> bool {
    bytes[0] == 22 && bytes[1] == 3
}
