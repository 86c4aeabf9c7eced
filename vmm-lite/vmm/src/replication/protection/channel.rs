//! A connection between two members, which never blocks: what the network does not take waits.

use crate::{
    host::{poll::Watch, poll::wait_any, watchdog::waits},
    migration::{
        connection::{Connection, LinkError},
        inbox::Inbox,
        tls::Tls,
    },
};
use migrate::{
    replication::wire::{HEADER_SIZE, Header, Message, decode},
    wire::WireError,
};
use std::{
    io::{self, Read},
    net::TcpStream,
    os::fd::{AsRawFd, RawFd},
    sync::Arc,
    time::{Duration, Instant},
};

/// Most bytes that wait for the network. A peer that takes none is suspected long before.
const WAITING_MAX: usize = 256 << 20;
/// Bytes to read at once.
const READ: usize = 128 << 10;
/// Longest first message of a peer, header included.
const FIRST_MAX: usize = HEADER_SIZE + 64;

/// See the module.
#[derive(Debug)]
pub struct Channel {
    stream: Arc<TcpStream>,
    tls: Option<Box<Tls>>,
    inbox: Inbox,
    /// What is to be sent; up to `sent` of it was.
    outbox: Vec<u8>,
    sent: usize,
    /// Bytes sent so far.
    total: u64,
    /// Longest accepted message, header included.
    most: usize,
}

impl Channel {
    /// Over an open connection. With `first` the peer has not introduced itself yet.
    ///
    /// # Errors
    /// The host's.
    pub fn over(connection: Connection, first: bool) -> io::Result<Self> {
        let (stream, tls, inbox) = connection.into_parts();
        stream.set_nonblocking(true)?;
        let most = if first { FIRST_MAX } else { usize::MAX };
        Ok(Self { stream, tls, inbox, outbox: Vec::new(), sent: 0, total: 0, most })
    }

    /// The peer has introduced itself: its messages may have the length of their kind.
    pub fn known(&mut self) {
        self.most = usize::MAX;
    }

    /// To be polled.
    pub fn fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }

    /// Bytes sent so far, those of TLS included.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Whether something waits to be sent.
    pub fn is_full(&self) -> bool {
        self.sent < self.outbox.len()
    }

    /// Queues a message.
    pub fn queue(&mut self, message: &Message) -> Result<(), LinkError> {
        self.queue_bytes(&message.encode())
    }

    /// Queues bytes that are messages.
    pub fn queue_bytes(&mut self, bytes: &[u8]) -> Result<(), LinkError> {
        if self.outbox.len() - self.sent + bytes.len() > WAITING_MAX {
            return Err(LinkError::Slow);
        }
        match &mut self.tls {
            Some(tls) => tls.send(&mut self.outbox, &mut self.inbox, bytes),
            None => {
                self.outbox.extend_from_slice(bytes);
                Ok(())
            }
        }
    }

    /// Sends what the network takes now.
    pub fn flush(&mut self) -> Result<(), LinkError> {
        while self.is_full() {
            // By the one call for sending that the vCPU's thread may make.
            match nix::unistd::write(&*self.stream, &self.outbox[self.sent..]) {
                Ok(n) => {
                    self.sent += n;
                    self.total += n as u64;
                }
                Err(nix::Error::EINTR) => {}
                Err(nix::Error::EAGAIN) => return Ok(()),
                Err(e) => return Err(LinkError::Io(e.into())),
            }
        }
        self.outbox.clear();
        self.sent = 0;
        Ok(())
    }

    /// Reads what has arrived. `false`: nothing had.
    pub fn read(&mut self) -> Result<bool, LinkError> {
        let stream = &self.stream;
        let read = |room: &mut [u8]| loop {
            match (&**stream).read(room) {
                Ok(0) => return Err(LinkError::Closed),
                Ok(n) => return Ok(n),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        };
        let read = match &mut self.tls {
            Some(tls) => tls.receive(&mut self.outbox, &mut self.inbox, read),
            None => read(self.inbox.room(READ)).map(|n| self.inbox.put(n)),
        };
        match read {
            Ok(()) => Ok(true),
            Err(LinkError::Io(e)) if e.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// The next message, if it has arrived in full.
    pub fn next(&mut self) -> Result<Option<Message>, LinkError> {
        let Some((head, rest)) = self.inbox.bytes().split_first_chunk::<HEADER_SIZE>() else {
            return Ok(None);
        };
        let header = Header::decode(head)?;
        let size = HEADER_SIZE + header.length as usize;
        if size > self.most {
            return Err(LinkError::First(size));
        }
        let Some(body) = rest.get(..header.length as usize) else { return Ok(None) };
        let message = decode(&header, body)?;
        self.inbox.take(size);
        Ok(Some(message))
    }

    /// Sends all that waits, within this time.
    pub fn send_all(&mut self, within: Duration) -> Result<(), LinkError> {
        let end = Instant::now() + within;
        loop {
            self.flush()?;
            if !self.is_full() {
                return Ok(());
            }
            let left = end.saturating_duration_since(Instant::now());
            if waits(|| wait_any([Watch::Writable(self.fd())], left))? == [false] && left.is_zero()
            {
                return Err(LinkError::Slow);
            }
        }
    }

    /// Waits for a message, within this time.
    pub fn receive(&mut self, within: Duration) -> Result<Message, LinkError> {
        let end = Instant::now() + within;
        loop {
            if let Some(message) = self.next()? {
                return Ok(message);
            }
            let left = end.saturating_duration_since(Instant::now());
            if waits(|| wait_any([Watch::Readable(self.fd())], left))? == [false] && left.is_zero()
            {
                return Err(LinkError::Slow);
            }
            self.read()?;
        }
    }

    /// Both ends see the end of the connection.
    pub fn close(&self) {
        // A peer that is gone needs none.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }
}

/// What a user is told of a peer that is no member of this version.
pub fn explained(e: LinkError, to: &str) -> LinkError {
    match e {
        LinkError::Wire(WireError::Magic) => LinkError::Io(io::Error::other(format!(
            "{to} is no standby: does `vmm-lite standby --listen {to}` of this version run there?"
        ))),
        e => e,
    }
}
