//! Messages over TCP.

use super::{CONNECT, Error, address::Address};
use migrate::wire::{HEADER_SIZE, Header, Kind, Message, PageFrame, WireError, decode};
use std::{
    io::{self, Read, Write},
    net::TcpStream,
    os::fd::{AsRawFd, RawFd},
    time::Duration,
};

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
    /// What came is no message.
    #[error(transparent)]
    Wire(#[from] WireError),
}

/// A connection to a peer. Messages are whole or an error.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    body: Vec<u8>,
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
    /// Connects to the first address that answers.
    ///
    /// # Errors
    /// [`Error::Address`], [`LinkError::Unreachable`].
    pub fn open(to: &Address) -> Result<Self, Error> {
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in to.resolve()? {
            match TcpStream::connect_timeout(&address, CONNECT) {
                Ok(stream) => return Ok(Self::over(stream)?),
                Err(e) => last = e,
            }
        }
        Err(LinkError::Unreachable { to: to.clone(), source: last }.into())
    }

    /// Over a connection that stands.
    ///
    /// # Errors
    /// [`LinkError::Io`].
    pub fn over(stream: TcpStream) -> Result<Self, LinkError> {
        // Messages are written whole: waiting for more to fill a segment only costs blackout.
        stream.set_nodelay(true)?;
        Ok(Self { stream, body: Vec::new(), sent: 0 })
    }

    /// The stream, to end the connection from elsewhere.
    ///
    /// # Errors
    /// [`LinkError::Io`].
    pub fn stream(&self) -> Result<TcpStream, LinkError> {
        Ok(self.stream.try_clone()?)
    }

    /// How long a read or a write may take before it is an error.
    ///
    /// # Errors
    /// [`LinkError::Io`].
    pub fn set_patience(&self, patience: Option<Duration>) -> Result<(), LinkError> {
        let patience = patience.map(|p| p.max(Duration::from_millis(1)));
        self.stream.set_read_timeout(patience)?;
        Ok(self.stream.set_write_timeout(patience)?)
    }

    /// Sends a message.
    ///
    /// # Errors
    /// [`LinkError::Io`].
    pub fn send(&mut self, message: &Message) -> Result<(), LinkError> {
        self.send_raw(&message.encode())
    }

    /// Sends bytes that are whole messages.
    ///
    /// # Errors
    /// [`LinkError::Io`].
    pub fn send_raw(&mut self, bytes: &[u8]) -> Result<(), LinkError> {
        self.stream.write_all(bytes)?;
        self.sent += bytes.len() as u64;
        Ok(())
    }

    /// Bytes sent so far.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Waits until something comes, at most that long. `false`: nothing did.
    ///
    /// # Errors
    /// [`LinkError::Io`].
    pub fn wait(&self, patience: Duration) -> Result<bool, LinkError> {
        wait_readable(self.stream.as_raw_fd(), patience).map_err(LinkError::Io)
    }

    /// Receives the next message. `pages` is the number of pages of the VM, 0 while there is none.
    ///
    /// # Errors
    /// [`LinkError`]; the connection is useless then.
    pub fn receive(&mut self, pages: usize) -> Result<Incoming<'_>, LinkError> {
        let mut header = [0; HEADER_SIZE];
        self.stream.read_exact(&mut header).map_err(closed)?;
        let header = Header::decode(&header)?;
        // Bounded by what the kind allows, whatever the peer announces.
        self.body.resize(header.length as usize, 0);
        self.stream.read_exact(&mut self.body).map_err(closed)?;
        if header.kind == Kind::Pages {
            if crc32fast::hash(&self.body) != header.checksum {
                return Err(WireError::Checksum.into());
            }
            return Ok(Incoming::Pages(PageFrame::decode(&self.body, pages)?));
        }
        Ok(Incoming::Message(decode(&header, &self.body, pages)?))
    }
}

fn closed(e: io::Error) -> LinkError {
    if e.kind() == io::ErrorKind::UnexpectedEof { LinkError::Closed } else { LinkError::Io(e) }
}

/// Waits until a descriptor is readable, at most that long.
///
/// # Errors
/// What `ppoll` says.
pub fn wait_readable(fd: RawFd, patience: Duration) -> io::Result<bool> {
    let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    let time = libc::timespec {
        tv_sec: patience.as_secs().min(1 << 30) as libc::time_t,
        tv_nsec: patience.subsec_nanos().into(),
    };
    // SAFETY: one valid entry, a valid time, no signal mask.
    match unsafe { libc::ppoll(&raw mut poll, 1, &raw const time, std::ptr::null()) } {
        -1 => match io::Error::last_os_error() {
            e if e.kind() == io::ErrorKind::Interrupted => Ok(false),
            e => Err(e),
        },
        n => Ok(n > 0),
    }
}
