//! TLS as moves use it: the same library, provider, version, cipher, records and buffer sizes, and
//! nothing else.
//!
//! The writer is the client. Data is encrypted from where it lies, and handed out where it was
//! decrypted.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    client::UnbufferedClientConnection,
    crypto::{CryptoProvider, ring},
    pki_types::{PrivateKeyDer, ServerName},
    server::UnbufferedServerConnection,
    unbuffered::{ConnectionState, EncodeError, UnbufferedStatus},
    version::TLS13,
};

/// Bytes encrypted before they are written.
const PIECE: usize = 64 << 10;
/// Size of the receive buffer.
const INCOMING: usize = 128 << 10;
const NAME: &str = "plain-copy";

/// The writing side.
pub struct Writer {
    session: UnbufferedClientConnection,
    buffers: Buffers,
}

/// The reading side.
pub struct Reader {
    session: UnbufferedServerConnection,
    buffers: Buffers,
}

struct Buffers {
    incoming: Vec<u8>,
    from: usize,
    to: usize,
    outgoing: Vec<u8>,
    out: usize,
}

/// What the library needs next.
enum Next {
    Again,
    Send,
    More,
    Ready,
}

impl Writer {
    /// Performs the handshake. The other side first sends its certificate in plaintext, and is then
    /// trusted for it.
    pub fn new(stream: &mut TcpStream) -> io::Result<Self> {
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        let mut certificate = vec![0; u32::from_le_bytes(length) as usize];
        stream.read_exact(&mut certificate)?;
        let mut roots = RootCertStore::empty();
        roots.add(certificate.into()).map_err(io::Error::other)?;
        let config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(io::Error::other)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(NAME).expect("a name");
        let session =
            UnbufferedClientConnection::new(config.into(), name).map_err(io::Error::other)?;
        let mut this = Self { session, buffers: Buffers::new() };
        this.go_on(stream, &[])?;
        Ok(this)
    }

    /// Encrypts and writes.
    pub fn write_all(&mut self, stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
        bytes.chunks(PIECE).try_for_each(|piece| self.go_on(stream, piece))
    }

    fn go_on(&mut self, stream: &mut TcpStream, data: &[u8]) -> io::Result<()> {
        loop {
            let Buffers { incoming, from, to, outgoing, out } = &mut self.buffers;
            let status = self.session.process_tls_records(&mut incoming[*from..*to]);
            let (used, next) = handle(status, outgoing, out, data, |_| Ok(()));
            *from += used;
            match next? {
                Next::Again => {}
                Next::Send => self.buffers.send(stream)?,
                Next::More => self.buffers.more(stream)?,
                Next::Ready => return self.buffers.send(stream),
            }
        }
    }
}

impl Reader {
    /// Performs the handshake.
    pub fn new(stream: &mut TcpStream) -> io::Result<Self> {
        let made = rcgen::generate_simple_self_signed([NAME.to_owned()]);
        let made = made.map_err(io::Error::other)?;
        let certificate = made.cert.der().clone();
        stream.write_all(&(certificate.len() as u32).to_le_bytes())?;
        stream.write_all(&certificate)?;
        let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(io::Error::other)?
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .map_err(io::Error::other)?;
        config.send_tls13_tickets = 0;
        let session = UnbufferedServerConnection::new(config.into()).map_err(io::Error::other)?;
        let mut this = Self { session, buffers: Buffers::new() };
        while !this.go_on(stream, &mut |_| Ok(()))? {
            this.buffers.more(stream)?;
        }
        Ok(this)
    }

    /// Reads once, and hands out what that decrypts to.
    pub fn read(
        &mut self,
        stream: &mut TcpStream,
        mut take: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        self.buffers.more(stream)?;
        self.go_on(stream, &mut take).map(drop)
    }

    /// Whether the handshake is done.
    fn go_on(
        &mut self,
        stream: &mut TcpStream,
        take: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<bool> {
        loop {
            let Buffers { incoming, from, to, outgoing, out } = &mut self.buffers;
            let status = self.session.process_tls_records(&mut incoming[*from..*to]);
            let (used, next) = handle(status, outgoing, out, &[], &mut *take);
            *from += used;
            match next? {
                Next::Again => {}
                Next::Send => self.buffers.send(stream)?,
                Next::More => return Ok(false),
                Next::Ready => return Ok(true),
            }
        }
    }
}

impl Buffers {
    fn new() -> Self {
        let (incoming, outgoing) = (vec![0; INCOMING], vec![0; PIECE + 4096]);
        Self { incoming, from: 0, to: 0, outgoing, out: 0 }
    }

    fn send(&mut self, stream: &mut TcpStream) -> io::Result<()> {
        let out = std::mem::take(&mut self.out);
        stream.write_all(&self.outgoing[..out])
    }

    fn more(&mut self, stream: &mut TcpStream) -> io::Result<()> {
        self.incoming.copy_within(self.from..self.to, 0);
        (self.from, self.to) = (0, self.to - self.from);
        match stream.read(&mut self.incoming[self.to..])? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            n => {
                self.to += n;
                Ok(())
            }
        }
    }
}

/// Does what the library needs. Returns how much of the received data was consumed.
fn handle<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    outgoing: &mut [u8],
    out: &mut usize,
    data: &[u8],
    mut take: impl FnMut(&[u8]) -> io::Result<()>,
) -> (usize, io::Result<Next>) {
    let UnbufferedStatus { mut discard, state } = status;
    let next = match state {
        Err(e) => Err(io::Error::other(e)),
        Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
            match traffic.next_record() {
                None => break Ok(Next::Again),
                Some(Ok(record)) => {
                    discard += record.discard;
                    if let Err(e) = take(record.payload) {
                        break Err(e);
                    }
                }
                Some(Err(e)) => break Err(io::Error::other(e)),
            }
        },
        Ok(ConnectionState::EncodeTlsData(mut encode)) => {
            match encode.encode(&mut outgoing[*out..]) {
                Ok(n) => {
                    *out += n;
                    Ok(Next::Again)
                }
                Err(EncodeError::AlreadyEncoded) => Ok(Next::Again),
                Err(e) => Err(io::Error::other(e)),
            }
        }
        Ok(ConnectionState::TransmitTlsData(transmit)) => {
            transmit.done();
            Ok(Next::Send)
        }
        Ok(ConnectionState::BlockedHandshake) => Ok(Next::More),
        Ok(ConnectionState::WriteTraffic(mut traffic)) => {
            match traffic.encrypt(data, &mut outgoing[*out..]) {
                Ok(n) => {
                    *out += n;
                    Ok(Next::Ready)
                }
                Err(e) => Err(io::Error::other(e)),
            }
        }
        Ok(_) => Err(io::ErrorKind::UnexpectedEof.into()),
    };
    (discard, next)
}

/// The provider of `ring`, with the cipher that moves use.
fn provider() -> Arc<CryptoProvider> {
    let cipher_suites = vec![ring::cipher_suite::TLS13_AES_128_GCM_SHA256];
    Arc::new(CryptoProvider { cipher_suites, ..ring::default_provider() })
}
