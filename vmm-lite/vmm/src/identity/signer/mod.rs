//! The process that has this host's private key during moves.
//!
//! A guest that breaks out of KVM can read all memory of its VMM. So no process that runs a guest,
//! or will run one, ever has the key. A TLS handshake needs one signature by it, and another
//! process makes that: `migrate` and `receive` start a *signer*, a process with the key and one end
//! of a socket, and the process of the VM has the other end.
//!
//! A signer does not sign arbitrary data. A request is the hash of a handshake's transcript and
//! nothing else; the signer builds the signed content itself: TLS 1.3's CertificateVerify (RFC
//! 8446, 4.4.3) for one side of a handshake. So no other statement gets signed. It ends when the
//! other end of its socket is closed, which `migrate` and `receive` do as soon as no more
//! signatures are needed, and when [`Leash`] says so.
//!
//! - `process`: the signer, and how it is started
//! - `remote`: the other end, as a key of the TLS library
//! - `socket`: the socket between the two

mod process;
mod remote;
pub(crate) mod socket;

pub use process::{Leash, Signing, Starting, serve, start};
pub use remote::RemoteKey;

/// Length of a signature.
pub const SIGNATURE: usize = 64;
/// Lengths of transcript hashes: SHA-256 and SHA-384.
const HASHES: [usize; 2] = [32, 48];
/// Longest request.
const REQUEST_MAX: usize = HASHES[1];
/// Longest answer: the hash again, which ties the answer to its request, and the signature.
const ANSWER_MAX: usize = REQUEST_MAX + SIGNATURE;

/// The side of the handshakes that a signer signs for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// The host that sends a VM, which is the client.
    Source,
    /// The host that receives one, which is the server.
    Destination,
}

impl Side {
    /// The signed content before the hash.
    fn prefix(self) -> Vec<u8> {
        let context: &[u8] = match self {
            Self::Source => b"TLS 1.3, client CertificateVerify\0",
            Self::Destination => b"TLS 1.3, server CertificateVerify\0",
        };
        [&[0x20; 64], context].concat()
    }

    /// The content to sign for a transcript's hash; `None` if `hash` cannot be one.
    fn statement(self, hash: &[u8]) -> Option<Vec<u8>> {
        HASHES.contains(&hash.len()).then(|| [&self.prefix(), hash].concat())
    }

    /// The transcript's hash in the content to sign; `None` for any other content.
    fn hash_in(self, statement: &[u8]) -> Option<&[u8]> {
        statement.strip_prefix(&self.prefix()[..]).filter(|hash| HASHES.contains(&hash.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{HostIdentity, PublicKey};
    use rustls::{SignatureScheme, sign::SigningKey};
    use std::{os::fd::OwnedFd, thread};
    use webpki::ring::ED25519;

    /// A signer in a thread, and the other end of its socket.
    fn signer(identity: HostIdentity, side: Side) -> (OwnedFd, thread::JoinHandle<()>) {
        let (here, there) = crate::host::beside::pair().unwrap();
        let key = identity.signing_key().unwrap();
        (here, thread::spawn(move || serve(&*key, side, &there, None)))
    }

    fn verifies(public: PublicKey, identity: &HostIdentity, message: &[u8], sig: &[u8]) -> bool {
        assert_eq!(public, identity.public());
        let certificate = webpki::EndEntityCert::try_from(identity.certificate().der()).unwrap();
        certificate.verify_signature(ED25519, message, sig).is_ok()
    }

    #[test]
    fn a_signature_is_for_the_requested_handshake() {
        for (side, hash) in [(Side::Source, 32), (Side::Destination, 48)] {
            let identity = HostIdentity::generate(10).unwrap();
            let copy = HostIdentity::from_pem(&identity.pem().0, &identity.pem().1).unwrap();
            let (socket, signer) = signer(copy, side);
            let key = RemoteKey::new(socket, side);
            let statement = [&side.prefix()[..], &vec![7; hash]].concat();
            let sign = |offered| key.choose_scheme(offered).map(|s| s.sign(&statement));
            assert!(sign(&[SignatureScheme::RSA_PSS_SHA256]).is_none());
            let signature = sign(&[SignatureScheme::ED25519]).unwrap().unwrap();
            assert!(verifies(identity.public(), &identity, &statement, &signature));
            // Other content is not even requested.
            let signs = key.choose_scheme(&[SignatureScheme::ED25519]).unwrap();
            let other = match side {
                Side::Source => Side::Destination,
                Side::Destination => Side::Source,
            };
            for wrong in [
                b"a will".to_vec(),
                other.statement(&[7; 32]).unwrap(),
                statement[1..].to_vec(),
                [&statement[..], b"more"].concat(),
                side.prefix(),
            ] {
                signs.sign(&wrong).unwrap_err();
            }
            drop((signs, key));
            signer.join().unwrap();
        }
    }

    #[test]
    fn a_request_that_is_no_hash_ends_the_signer_without_an_answer() {
        for wrong in [&[][..], b"a will", &[0x20; 98], &[1; 33], &[1; 4096]] {
            let (socket, signer) = signer(HostIdentity::generate(10).unwrap(), Side::Source);
            if wrong.is_empty() {
                drop(socket);
            } else {
                socket::put(&socket, wrong).unwrap();
                let mut answer = [0; 256];
                assert_eq!(socket::take(&socket, &mut answer).unwrap(), 0, "{wrong:?}");
            }
            signer.join().unwrap();
        }
    }

    #[test]
    fn an_answer_to_another_request_is_skipped() {
        let (socket, there) = crate::host::beside::pair().unwrap();
        for byte in [1, 2] {
            socket::put(&there, &[&[byte; 32][..], &[byte; SIGNATURE]].concat()).unwrap();
        }
        let key = RemoteKey::new(socket, Side::Source);
        let signs = key.choose_scheme(&[SignatureScheme::ED25519]).unwrap();
        let asked = Side::Source.statement(&[2; 32]).unwrap();
        assert_eq!(signs.sign(&asked).unwrap(), [2; SIGNATURE]);
    }

    #[test]
    fn a_missing_signer_is_reported_as_such() {
        let (socket, there) = crate::host::beside::pair().unwrap();
        let key = RemoteKey::new(socket, Side::Source);
        drop(there);
        let signs = key.choose_scheme(&[SignatureScheme::ED25519]).unwrap();
        let asked = Side::Source.statement(&[2; 32]).unwrap();
        let said = signs.sign(&asked).unwrap_err().to_string();
        assert!(said.contains("the process that signs with this host's key has ended"), "{said}");
    }

    #[test]
    fn the_leash_ends_a_signer_and_its_loss_does_not() {
        let (leash, held) = crate::host::beside::pair().unwrap();
        let (here, there) = crate::host::beside::pair().unwrap();
        let key = HostIdentity::generate(10).unwrap().signing_key().unwrap();
        let signer = thread::spawn(move || serve(&*key, Side::Source, &there, Some(&held)));
        Leash(leash).release();
        signer.join().unwrap();
        drop(here);
        let (leash, held) = crate::host::beside::pair().unwrap();
        let (here, there) = crate::host::beside::pair().unwrap();
        let identity = HostIdentity::generate(10).unwrap();
        let key = identity.signing_key().unwrap();
        let signer = thread::spawn(move || serve(&*key, Side::Source, &there, Some(&held)));
        drop(Leash(leash));
        let key = RemoteKey::new(here, Side::Source);
        let signs = key.choose_scheme(&[SignatureScheme::ED25519]).unwrap();
        signs.sign(&Side::Source.statement(&[2; 32]).unwrap()).unwrap();
        drop((signs, key));
        signer.join().unwrap();
    }
}
