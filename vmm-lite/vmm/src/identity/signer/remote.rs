//! The key in a process that may not have it: a socket to the signer.

use super::{
    ANSWER_MAX, SIGNATURE, Side,
    socket::{put, take, wait},
};
use rustls::{
    Error, OtherError, SignatureAlgorithm, SignatureScheme,
    sign::{Signer, SigningKey},
};
use std::{
    io,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// The timeout for a signature, which takes a fraction of a millisecond on an idle host.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A key in another process, for one side of handshakes. The TLS library uses it like any other.
#[derive(Clone, Debug)]
pub struct RemoteKey {
    /// Held for a request and its answer.
    socket: Arc<Mutex<OwnedFd>>,
    side: Side,
}

impl RemoteKey {
    /// The key of the signer at the other end of `socket`. The signer ends with the last copy.
    #[must_use]
    pub fn new(socket: OwnedFd, side: Side) -> Self {
        Self { socket: Arc::new(Mutex::new(socket)), side }
    }

    fn ask(&self, hash: &[u8]) -> io::Result<Vec<u8>> {
        let socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        put(&socket, hash)?;
        let end = Instant::now() + TIMEOUT;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let [answered, _] = wait([Some(&socket), None], Some(left))?;
            if !answered && Instant::now() >= end {
                return Err(io::ErrorKind::TimedOut.into());
            }
            if !answered {
                continue;
            }
            let mut answer = [0; ANSWER_MAX];
            let n = take(&socket, &mut answer)?;
            if n == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            // A late answer to an earlier request does not belong to this one.
            let signature = answer[..n].strip_prefix(hash);
            if let Some(signature) = signature.filter(|s| s.len() == SIGNATURE) {
                return Ok(signature.to_vec());
            }
        }
    }
}

impl SigningKey for RemoteKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let offered = offered.contains(&SignatureScheme::ED25519);
        offered.then(|| Box::new(self.clone()) as Box<dyn Signer>)
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ED25519
    }
}

/// Why there is no signature.
#[derive(thiserror::Error, Debug)]
enum NotSigned {
    #[error("only the proof in a TLS 1.3 handshake is signed")]
    NoHandshake,
    #[error(
        "the process that signs with this host's key has ended: `vmm-lite migrate` and \
         `receive` start it, \
         and it must run until the move is over"
    )]
    Gone(#[source] io::Error),
}

impl Signer for RemoteKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let failed = |e: NotSigned| Error::Other(OtherError(Arc::new(e)));
        let hash = self.side.hash_in(message).ok_or_else(|| failed(NotSigned::NoHandshake))?;
        self.ask(hash).map_err(|e| failed(NotSigned::Gone(e)))
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}
