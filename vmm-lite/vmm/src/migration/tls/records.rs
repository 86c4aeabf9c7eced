//! Messages to records and back: the library does the cryptography in buffers of this module, so a
//! write is one system call, and so is a read.

use super::{Credentials, TlsError, explained, verifier::Verifier};
use crate::{
    host::poll::Watch,
    identity::{PublicKey, certificate},
    migration::{called_off::failure, connection::LinkError, inbox::Inbox},
    vm::CallOff,
};
use migrate::wire::Message;
use rustls::{
    CommonState,
    client::UnbufferedClientConnection,
    server::UnbufferedServerConnection,
    unbuffered::{
        ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus,
    },
};
use std::{
    fmt,
    io::{self, Read, Write},
    net::TcpStream,
    os::fd::AsRawFd,
    sync::Arc,
    time::{Duration, Instant},
};

/// Buffer for input before the handshake is done: one record.
const INCOMING_FIRST: usize = 18 << 10;
/// Buffer for input of an authenticated host: several records per read.
const INCOMING: usize = 128 << 10;
/// Bytes encrypted before they are written, so that one piece is in transit while the next is
/// encrypted.
const PIECE: usize = 64 << 10;
/// The last piece may be longer, so that a little more than a piece needs no second write.
const LAST_PIECE: usize = PIECE + 4096;
/// Overhead of records for a piece, and of a key update before it.
const ADDED: usize = (LAST_PIECE / 16384 + 1) * 22 + 256;
/// The handshake's timeout for the side that connects. The listening side has its own.
const HANDSHAKE: Duration = Duration::from_secs(5);

enum Session {
    Client(UnbufferedClientConnection),
    Server(UnbufferedServerConnection),
}

// The library's own types have no `Debug`.
impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Client(_) => "Client",
            Self::Server(_) => "Server",
        })
    }
}

/// A session on a stream that the caller holds.
#[derive(Debug)]
pub struct Tls {
    session: Session,
    verifier: Arc<Verifier>,
    me: PublicKey,
    /// Input: `from..to` of it is not decrypted, less than a record between calls.
    incoming: Vec<u8>,
    from: usize,
    to: usize,
    /// Output: `..out` of it.
    outgoing: Vec<u8>,
    out: usize,
}

/// What the library needs next.
enum Next {
    /// To be called again.
    Again,
    /// Its output sent, then to be called again.
    Send,
    /// More input.
    More,
    /// Nothing: the handshake is done, and the data is encrypted.
    Ready,
    /// Nothing any more: the session is closed.
    Closed,
}

impl Tls {
    /// Makes a session with the host that listens at the other end, for as long as that is
    /// `wanted`. It may be silent for `timeout`.
    ///
    /// # Errors
    /// [`LinkError::Tls`] with the reason, [`LinkError::Io`], [`LinkError::Closed`],
    /// [`LinkError::CalledOff`].
    pub fn connect(
        stream: &TcpStream,
        inbox: &mut Inbox,
        credentials: &Credentials,
        pinned: Option<PublicKey>,
        timeout: Duration,
        call_off: &CallOff,
    ) -> Result<Self, LinkError> {
        let (session, verifier) = credentials.client(pinned)?;
        let this = Self::new(Session::Client(session), verifier, credentials);
        this.shake_hands(stream, inbox, timeout, call_off)
    }

    /// Makes a session with the host that has connected.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub fn accept(
        stream: &TcpStream,
        inbox: &mut Inbox,
        credentials: &Credentials,
        timeout: Duration,
    ) -> Result<Self, LinkError> {
        let (session, verifier) = credentials.server()?;
        let this = Self::new(Session::Server(session), verifier, credentials);
        this.shake_hands(stream, inbox, timeout, &CallOff::NEVER)
    }

    fn new(session: Session, verifier: Arc<Verifier>, credentials: &Credentials) -> Self {
        Self {
            session,
            verifier,
            me: credentials.certificate.public(),
            incoming: vec![0; INCOMING_FIRST],
            from: 0,
            to: 0,
            outgoing: Vec::new(),
            out: 0,
        }
    }

    fn state(&self) -> &CommonState {
        match &self.session {
            Session::Client(session) => session,
            Session::Server(session) => session,
        }
    }

    /// The other host's key.
    #[must_use]
    pub fn peer(&self) -> Option<PublicKey> {
        certificate::key_of(self.state().peer_certificates()?.first()?).ok()
    }

    /// Data that the other side sends right after its handshake is put into `inbox`.
    fn shake_hands(
        mut self,
        stream: &TcpStream,
        inbox: &mut Inbox,
        timeout: Duration,
        call_off: &CallOff,
    ) -> Result<Self, LinkError> {
        let end = Instant::now() + HANDSHAKE;
        while let Next::More = self.go_on(&mut &*stream, inbox, &[])? {
            let left = end.saturating_duration_since(Instant::now()).min(timeout);
            let full = self.to - self.from == self.incoming.len();
            let ready = call_off
                .wait(&[Watch::Readable(stream.as_raw_fd())], left)?
                .map_err(|off| failure(off, "connecting"))?;
            if full || ready == [false] {
                return Err(TlsError::Handshake.into());
            }
            self.make_room();
            match (&mut &*stream).read(&mut self.incoming[self.to..]) {
                Ok(0) => return Err(LinkError::Closed),
                Ok(n) => self.to += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
            if self.incoming[self.from..self.to].starts_with(&migrate::wire::MAGIC) {
                if let Session::Server(_) = self.session {
                    let why = "this destination takes TLS only: leave --plaintext out, or use it \
                        on both sides";
                    // A peer that has disconnected does not receive it.
                    let _ = (&mut &*stream).write_all(&Message::Abort(why.into()).encode());
                }
                return Err(TlsError::Plaintext.into());
            }
        }
        if self.state().alpn_protocol() != Some(&super::protocol()) {
            return Err(TlsError::Version.into());
        }
        self.incoming.resize(INCOMING, 0);
        self.outgoing.resize(LAST_PIECE + ADDED, 0);
        Ok(self)
    }

    fn make_room(&mut self) {
        if self.from > 0 {
            self.incoming.copy_within(self.from..self.to, 0);
            (self.from, self.to) = (0, self.to - self.from);
        }
    }

    /// Lets the library process the input: decrypted data is put into `inbox`, its answer is sent,
    /// and `data`, if any, is encrypted and sent once.
    fn go_on(
        &mut self,
        to: &mut dyn Write,
        inbox: &mut Inbox,
        data: &[u8],
    ) -> Result<Next, LinkError> {
        loop {
            let next = match self.step(inbox, data) {
                Ok(next) => next,
                Err(e) => return Err(self.failed(to, e)),
            };
            match next {
                Next::Again => {}
                Next::Send => self.flush(to)?,
                Next::Ready => {
                    self.flush(to)?;
                    return Ok(Next::Ready);
                }
                Next::More | Next::Closed => return Ok(next),
            }
        }
    }

    fn step(&mut self, inbox: &mut Inbox, data: &[u8]) -> Result<Next, rustls::Error> {
        let incoming = &mut self.incoming[self.from..self.to];
        let (outgoing, out) = (&mut self.outgoing, &mut self.out);
        let (used, next) = match &mut self.session {
            Session::Client(session) => {
                handle(session.process_tls_records(incoming), outgoing, out, inbox, data)
            }
            Session::Server(session) => {
                handle(session.process_tls_records(incoming), outgoing, out, inbox, data)
            }
        };
        self.from += used;
        next
    }

    /// Tells the other side why, as far as the library does, and returns it in words.
    fn failed(&mut self, to: &mut dyn Write, e: rustls::Error) -> LinkError {
        // Once: there is at most one alert, and it comes first.
        if let Ok(Next::Again) = self.step(&mut Inbox::default(), &[]) {
            // A peer that has disconnected does not receive it.
            let _ = self.flush(to);
        }
        explained(e, &self.verifier, self.verifier.role(), self.me).into()
    }

    fn flush(&mut self, to: &mut dyn Write) -> Result<(), LinkError> {
        let sent = to.write_all(&self.outgoing[..self.out]);
        self.out = 0;
        Ok(sent?)
    }

    /// Encrypts, and sends `to` the stream, or to what is sent there later.
    ///
    /// # Errors
    /// [`LinkError::Io`], [`LinkError::Tls`].
    pub fn send(
        &mut self,
        to: &mut dyn Write,
        inbox: &mut Inbox,
        bytes: &[u8],
    ) -> Result<(), LinkError> {
        let mut left = bytes;
        while !left.is_empty() {
            let n = if left.len() <= LAST_PIECE { left.len() } else { PIECE };
            let (piece, rest) = left.split_at(n);
            left = rest;
            if let Next::Closed | Next::More = self.go_on(to, inbox, piece)? {
                return Err(LinkError::Closed);
            }
        }
        Ok(())
    }

    /// Reads once by `read`, and decrypts the complete records into `inbox`. What the library
    /// answers goes `to` the stream.
    ///
    /// # Errors
    /// The error of `read`, [`LinkError::Closed`], [`LinkError::Tls`].
    pub fn receive(
        &mut self,
        to: &mut dyn Write,
        inbox: &mut Inbox,
        read: impl FnOnce(&mut [u8]) -> Result<usize, LinkError>,
    ) -> Result<(), LinkError> {
        self.make_room();
        self.to += read(&mut self.incoming[self.to..])?;
        match self.go_on(to, inbox, &[])? {
            Next::Closed => Err(LinkError::Closed),
            Next::Again | Next::Send | Next::More | Next::Ready => Ok(()),
        }
    }
}

/// Does what the library needs; returns how much of the input it has consumed.
fn handle<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    outgoing: &mut Vec<u8>,
    out: &mut usize,
    inbox: &mut Inbox,
    data: &[u8],
) -> (usize, Result<Next, rustls::Error>) {
    let UnbufferedStatus { mut discard, state } = status;
    let next = match state {
        Err(e) => Err(e),
        Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
            match traffic.next_record() {
                None => break Ok(Next::Again),
                Some(Ok(record)) => {
                    discard += record.discard;
                    inbox.extend(record.payload);
                }
                Some(Err(e)) => break Err(e),
            }
        },
        Ok(ConnectionState::EncodeTlsData(mut encode)) => loop {
            match encode.encode(&mut outgoing[*out..]) {
                Ok(n) => {
                    *out += n;
                    break Ok(Next::Again);
                }
                Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) => {
                    outgoing.resize(*out + required_size, 0);
                }
                Err(e) => break Err(rustls::Error::General(e.to_string())),
            }
        },
        Ok(ConnectionState::TransmitTlsData(transmit)) => {
            transmit.done();
            Ok(Next::Send)
        }
        Ok(ConnectionState::BlockedHandshake) => Ok(Next::More),
        Ok(ConnectionState::WriteTraffic(mut traffic)) => loop {
            match traffic.encrypt(data, &mut outgoing[*out..]) {
                Ok(n) => {
                    *out += n;
                    break Ok(Next::Ready);
                }
                Err(EncryptError::InsufficientSize(InsufficientSizeError { required_size })) => {
                    outgoing.resize(*out + required_size, 0);
                }
                Err(e) => break Err(rustls::Error::General(e.to_string())),
            }
        },
        Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => Ok(Next::Closed),
        Ok(_) => Err(rustls::Error::General("data before the handshake".into())),
    };
    (discard, next)
}
