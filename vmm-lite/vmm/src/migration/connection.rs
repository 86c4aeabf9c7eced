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

/// Longest first message, header and body: a hello or a question. Until it has arrived, the
/// connection buffers no more than this for a peer.
const FIRST_MAX: usize = HEADER_SIZE + 64;
/// Bytes to read at once where fewer are needed. Consecutive short messages arrive by one read.
const AHEAD: usize = 16 << 10;

/// Errors of a connection.
#[derive(thiserror::Error, Debug)]
pub enum LinkError {
    /// The peer cannot be reached.
    #[error("cannot reach {to}; does `vmm-lite receive --listen {to}` run there?")]
    Unreachable {
        /// The address.
        to: Address,
        /// The network's error.
        source: io::Error,
    },
    /// The network failed.
    #[error("the connection failed")]
    Io(#[from] io::Error),
    /// The peer closed it.
    #[error("the peer closed the connection")]
    Closed,
    /// The peer stopped sending in the middle of a message.
    #[error("the peer stopped, or became very slow, in the middle of a message")]
    Slow,
    /// The bytes are not a message.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The first message is too long to be one.
    #[error("the peer began with {0} bytes, which is neither a move nor a question")]
    First(usize),
    /// TLS where there should be plaintext.
    #[error(
        "the peer speaks TLS and this side plaintext: leave --plaintext out here, or use it on \
         both sides"
    )]
    Encrypted,
    /// TLS failed.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// It was [cancelled](CallOff) before the connection was established.
    #[error(transparent)]
    CalledOff(#[from] migrate::source::Failure),
}

/// How two hosts communicate.
#[derive(Clone, Debug)]
pub enum Transport {
    /// In plaintext: any host on the network path can read and change it.
    Plaintext,
    /// Encrypted, both sides authenticated.
    Tls(Credentials),
}

/// A connection to a peer. Messages are whole or an error.
#[derive(Debug)]
pub struct Connection {
    stream: Arc<TcpStream>,
    tls: Option<Box<Tls>>,
    inbox: Inbox,
    /// Longest accepted message, header included.
    most: usize,
    /// Whether the peer has closed its direction.
    closed: bool,
    timeout: Duration,
    sent: u64,
}

/// A received message.
#[derive(Debug)]
pub enum Incoming<'a> {
    /// Pages, in the receive buffer.
    Pages(PageFrame<'a>),
    /// Any other message.
    Message(Message),
}

impl Connection {
    /// Connects to the first address that answers, for as long as that is `wanted`; with `pinned`
    /// only to the host with that key. `timeout` is as in [`set_timeout`](Self::set_timeout).
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

    /// Accepts a peer that has connected. Its first message must be short: see
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

    /// Whether the peer's first message begins with these bytes. Waits for them.
    ///
    /// # Errors
    /// [`LinkError`].
    pub fn begins_with(&mut self, magic: [u8; 4]) -> Result<bool, LinkError> {
        self.need(magic.len())?;
        Ok(self.inbox.bytes().starts_with(&magic))
    }

    /// Notes that the peer has introduced itself: from now on its messages may have the full length
    /// of their kind.
    pub fn known(&mut self) {
        self.most = usize::MAX;
    }

    /// The peer's proven identity.
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.tls.as_ref()?.peer().map(|key| key.0)
    }

    /// The address of the other end, for messages.
    #[must_use]
    pub fn other_end(&self) -> String {
        self.stream.peer_addr().map_or_else(|_| "its source".into(), |at| at.to_string())
    }

    /// The stream, to close the connection from another thread.
    #[must_use]
    pub fn stream(&self) -> Arc<TcpStream> {
        Arc::clone(&self.stream)
    }

    /// The descriptor to poll. It is not readable because of what was [read
    /// ahead](Self::has_buffered).
    #[must_use]
    pub fn fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }

    /// Whether bytes were read that were not received yet. Check this before polling the
    /// descriptor.
    #[must_use]
    pub fn has_buffered(&self) -> bool {
        self.inbox.len() > 0 || self.closed
    }

    /// Its parts, for other messages than these: the stream, the session on it, and what was read
    /// ahead.
    #[must_use]
    pub(crate) fn into_parts(self) -> (Arc<TcpStream>, Option<Box<Tls>>, Inbox) {
        (self.stream, self.tls, self.inbox)
    }

    /// Sets the timeout for a write, and for the rest of a message that has begun.
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
        // For a peer that may be slow, up to the timeout.
        waits(|| match &mut self.tls {
            Some(tls) => tls.send(&mut &*self.stream, &mut self.inbox, bytes),
            None => Ok((&mut &*self.stream).write_all(bytes)?),
        })?;
        self.sent += bytes.len() as u64;
        Ok(())
    }

    /// Bytes that were sent and not acknowledged by the peer's host yet.
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

    /// Waits until something can be received, at most `timeout`. `false`: nothing arrived.
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
                // The receiver gets the error.
                Err(LinkError::Closed) => self.closed = true,
                Err(LinkError::Io(e)) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
            if !self.has_buffered() {
                // Part of a record: nothing can be received yet.
                let end = *end.get_or_insert_with(|| Instant::now() + timeout);
                left = end.saturating_duration_since(Instant::now());
            }
        }
        Ok(true)
    }

    /// Polls until something can be received, or `end`: a wake-up can take longer than the wait
    /// itself. `false`: nothing arrived.
    pub fn stay_awake(&mut self, end: Instant) -> bool {
        while Instant::now() < end {
            // The receiver gets the error.
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
            Some(tls) => tls.receive(&mut &*self.stream, &mut self.inbox, read),
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
            // A peer that sends a byte now and then counts as silent.
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
    /// [`LinkError`]: the connection cannot be used any more.
    pub fn receive(&mut self, pages: usize) -> Result<Incoming<'_>, LinkError> {
        self.need(HEADER_SIZE)?;
        let (header, _) = self.inbox.bytes().split_at(HEADER_SIZE);
        let header: [u8; HEADER_SIZE] = header.try_into().expect("split at its size");
        if self.tls.is_none() && looks_like_tls(&header) {
            return Err(LinkError::Encrypted);
        }
        let header = Header::decode(&header)?;
        // The kind of the message limits this, whatever the peer announces.
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

/// Whether a TLS handshake begins like this.
fn looks_like_tls(bytes: &[u8; HEADER_SIZE]) -> bool {
    bytes[0] == 22 && bytes[1] == 3
}
