//! Verifies the other host's identity and permissions.

use super::TlsError;
use crate::identity::{PublicKey, Role, TrustStore, certificate};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible,
    SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use std::sync::{Arc, Mutex, PoisonError};
use webpki::ring::ED25519;

const ALGORITHMS: WebPkiSupportedAlgorithms = WebPkiSupportedAlgorithms {
    all: &[ED25519],
    mapping: &[(SignatureScheme::ED25519, &[ED25519])],
};

/// Why a host is rejected: as an alert tells the other side, and as it is reported here.
type Rejected = (CertificateError, Box<TlsError>);

/// Verifies one connection's other side.
#[derive(Debug)]
pub struct Verifier {
    trusted: Arc<TrustStore>,
    role: Role,
    pinned: Option<PublicKey>,
    expected: Option<Arc<[PublicKey]>>,
    rejected: Mutex<Option<TlsError>>,
}

impl Verifier {
    /// A verifier that accepts hosts with this `role`, and with `pinned` only the one with that
    /// key.
    pub fn new(trusted: Arc<TrustStore>, role: Role, pinned: Option<PublicKey>) -> Self {
        Self { trusted, role, pinned, expected: None, rejected: Mutex::new(None) }
    }

    /// The same, which accepts only these keys.
    pub fn expecting(self, expected: Option<Arc<[PublicKey]>>) -> Self {
        Self { expected, ..self }
    }

    /// Why the other side was rejected, in words.
    pub fn take_rejected(&self) -> Option<TlsError> {
        self.rejected.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The other side's role.
    pub fn role(&self) -> Role {
        self.role
    }

    fn judge(&self, presented: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
        let (why, error) = match self.look(presented, now) {
            Ok(()) => return Ok(()),
            Err(rejected) => rejected,
        };
        *self.rejected.lock().unwrap_or_else(PoisonError::into_inner) = Some(*error);
        Err(why.into())
    }

    fn look(&self, presented: &CertificateDer<'_>, now: UnixTime) -> Result<(), Rejected> {
        let none = |e| (CertificateError::BadEncoding, Box::new(TlsError::Certificate(e)));
        let key = certificate::key_of(presented).map_err(none)?;
        if let Some(began) = self.pinned
            && began != key
        {
            return Err((CertificateError::UnknownIssuer, Box::new(TlsError::Another { began })));
        }
        if let Some(expected) = &self.expected
            && !expected.contains(&key)
        {
            let name = self.trusted.get(&key).map(|host| host.name.clone());
            let error = TlsError::Unexpected { key, name, expected: expected.to_vec() };
            return Err((CertificateError::UnknownIssuer, Box::new(error)));
        }
        let Some(host) = self.trusted.get(&key) else {
            return Err((CertificateError::UnknownIssuer, Box::new(TlsError::Stranger(key))));
        };
        let name = host.name.clone();
        match certificate::check(presented, &key, now) {
            Ok(()) => {}
            Err(webpki::Error::CertExpired { .. }) => {
                let what = "has expired";
                return Err((
                    CertificateError::Expired,
                    Box::new(TlsError::Time { name, key, what }),
                ));
            }
            Err(webpki::Error::CertNotValidYet { .. }) => {
                let what = "is not valid yet";
                return Err((
                    CertificateError::NotValidYet,
                    Box::new(TlsError::Time { name, key, what }),
                ));
            }
            Err(e) => return Err(none(e)),
        }
        if !host.may(self.role) {
            let what = match self.role {
                Role::Send => "send VMs here",
                Role::Receive => "receive VMs from here",
            };
            let error = TlsError::NotForThis { name, key, what };
            return Err((CertificateError::ApplicationVerificationFailure, Box::new(error)));
        }
        Ok(())
    }
}

/// TLS 1.2 is not offered, so this is never reached.
fn too_old<T>() -> Result<T, Error> {
    Err(PeerIncompatible::ServerDoesNotSupportTls12Or13.into())
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.judge(end_entity, now).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        too_old()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &ALGORITHMS)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ALGORITHMS.supported_schemes()
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.judge(end_entity, now).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        too_old()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &ALGORITHMS)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ALGORITHMS.supported_schemes()
    }
}
