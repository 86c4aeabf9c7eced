//! TLS 1.3 between hosts that trust each other's keys.
//!
//! Both sides prove that they have the key of a certificate that they signed themselves; each takes
//! the other only if that key is in its own [`TrustStore`] for what it is about to do. No session
//! is resumed, nothing is sent before the handshake is done, and nothing of the handshake comes
//! after it: what follows is messages alone.
//!
//! - [`verifier`]: who the other host is, and whether it may
//! - [`records`]: messages to records and back

mod records;
mod verifier;

pub use records::Tls;

use crate::identity::{
    Error as IdentityError, HostCertificate, HostIdentity, PublicKey, Role, TrustStore,
};
use migrate::PROTOCOL_VERSION;
use rustls::{
    AlertDescription, ClientConfig, ServerConfig,
    client::{Resumption, UnbufferedClientConnection},
    crypto::{CryptoProvider, ring},
    pki_types::ServerName,
    server::{NoServerSessionStorage, UnbufferedServerConnection},
    sign::{CertifiedKey, SigningKey, SingleCertAndKey},
    version::TLS13,
};
use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};
use verifier::Verifier;

/// Why hosts do not talk.
#[derive(thiserror::Error, Debug)]
pub enum TlsError {
    /// A stranger.
    #[error(
        "the other host's key {0} is not trusted here. If it is the right host (`vmm-lite identity \
         show` there prints its key), run here: \
         vmm-lite identity trust {0}"
    )]
    Stranger(PublicKey),
    /// A host that is trusted, but not for this.
    #[error(
        "{name} ({key}) is trusted here, but not to {what}; `vmm-lite identity trust {key} {name}` \
         lets it do both"
    )]
    NotForThis {
        /// Its name here.
        name: String,
        /// Its key.
        key: PublicKey,
        /// What it may not do.
        what: &'static str,
    },
    /// A certificate out of its time.
    #[error(
        "the certificate of {name} ({key}) {what}: `vmm-lite identity renew` there makes a new \
         one; are the clocks of both hosts right?"
    )]
    Time {
        /// Its name here.
        name: String,
        /// Its key.
        key: PublicKey,
        /// Before or after.
        what: &'static str,
    },
    /// A certificate that is none.
    #[error("the other host's certificate is none that vmm-lite makes")]
    Certificate(#[source] webpki::Error),
    /// Not the host that a move was begun with.
    #[error("another host answers there than the one that the move was begun with ({began})")]
    Another {
        /// With whom it was begun.
        began: PublicKey,
    },
    /// A host that is trusted or not, and is not the one that is expected at that address.
    #[error(
        "another host answers there than the one that is expected: it has the key {key}{}, and not \
         {}. Either the address leads to another host, or the host has a new key: if that is so \
         and you have its key from the host itself (`vmm-lite identity show`), run: vmm-lite \
         identity \
         trust {key} NAME --at HOST:PORT",
        in_brackets(.name),
        keys(.expected)
    )]
    Unexpected {
        /// Its key.
        key: PublicKey,
        /// Its name here, if it is trusted.
        name: Option<String>,
        /// The keys that are expected.
        expected: Vec<PublicKey>,
    },
    /// The other side does not know this host.
    #[error(
        "the other host does not trust this one's key, or expects another host's at this address. \
         If it should trust it, run there: vmm-lite identity trust {0}"
    )]
    StrangerThere(PublicKey),
    /// The other side knows this host, but not for this.
    #[error(
        "the other host trusts this one's key, but not to {what}; run there: vmm-lite identity \
         trust {key}"
    )]
    NotForThisThere {
        /// This host's key.
        key: PublicKey,
        /// What it may not do.
        what: &'static str,
    },
    /// This host's certificate is out of its time by the other's clock.
    #[error(
        "the other host says that this one's certificate has expired or is not valid yet; \
         `vmm-lite identity renew` here makes a new one; are \
         the clocks of both hosts right?"
    )]
    TimeThere,
    /// Other versions.
    #[error(
        "the other host speaks another version of the migration protocol than {PROTOCOL_VERSION}: \
         run the same vmm-lite on both"
    )]
    Version,
    /// No TLS.
    #[error(
        "the other side speaks plaintext: leave --plaintext out there, or use it on both sides"
    )]
    Plaintext,
    /// More than a handshake takes.
    #[error("the other side did not come to an end with the handshake")]
    Handshake,
    /// The rest.
    #[error("TLS with the other side failed")]
    Tls(#[from] rustls::Error),
}

fn in_brackets(name: &Option<String>) -> String {
    name.as_ref().map_or(String::new(), |name| format!(" ({name})"))
}

fn keys(keys: &[PublicKey]) -> String {
    keys.iter().map(PublicKey::to_string).collect::<Vec<_>>().join(" or ")
}

/// What a host proves, and which hosts it accepts.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// Who this host is.
    pub certificate: HostCertificate,
    /// What signs for it: in a process that runs a guest never the key itself.
    pub key: Arc<dyn SigningKey>,
    /// Whom it trusts.
    pub trusted: Arc<TrustStore>,
    /// Of the hosts that may receive, those that may answer; `None`: any.
    pub expected: Option<Arc<[PublicKey]>>,
}

impl Credentials {
    /// With the private key in this process's memory: for processes that run no guest.
    ///
    /// # Errors
    /// [`IdentityError::Broken`].
    pub fn with_key(
        identity: &HostIdentity,
        trusted: Arc<TrustStore>,
    ) -> Result<Self, IdentityError> {
        let (certificate, key) = (identity.certificate().clone(), identity.signing_key()?);
        Ok(Self { certificate, key, trusted, expected: None })
    }

    /// For moving a VM to a host; with `pinned` to the one with that key only.
    pub(super) fn client(
        &self,
        pinned: Option<PublicKey>,
    ) -> Result<(UnbufferedClientConnection, Arc<Verifier>), TlsError> {
        let verifier = Verifier::new(Arc::clone(&self.trusted), Role::Receive, pinned);
        let verifier = Arc::new(verifier.expecting(self.expected.clone()));
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&verifier) as _)
            .with_client_cert_resolver(self.certified());
        config.alpn_protocols = vec![protocol()];
        config.resumption = Resumption::disabled();
        config.enable_sni = false;
        // The other host is known by its key; its name and address say nothing.
        let name = ServerName::IpAddress(IpAddr::V4(Ipv4Addr::UNSPECIFIED).into());
        Ok((UnbufferedClientConnection::new(Arc::new(config), name)?, verifier))
    }

    /// For taking a VM from a host.
    pub(super) fn server(&self) -> Result<(UnbufferedServerConnection, Arc<Verifier>), TlsError> {
        let verifier = Arc::new(Verifier::new(Arc::clone(&self.trusted), Role::Send, None));
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(Arc::clone(&verifier) as _)
            .with_cert_resolver(self.certified());
        config.alpn_protocols = vec![protocol()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok((UnbufferedServerConnection::new(Arc::new(config))?, verifier))
    }

    fn certified(&self) -> Arc<SingleCertAndKey> {
        let chain = vec![self.certificate.der().clone()];
        Arc::new(CertifiedKey::new(chain, Arc::clone(&self.key)).into())
    }
}

/// What is spoken inside, by the name that the handshake agrees on.
fn protocol() -> Vec<u8> {
    format!("vmm-lite-migration/{PROTOCOL_VERSION}").into_bytes()
}

/// `ring`'s, with the cipher first that is fastest on every CPU that has KVM.
fn provider() -> Arc<CryptoProvider> {
    use ring::cipher_suite::{
        TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
    };
    Arc::new(CryptoProvider {
        cipher_suites: vec![
            TLS13_AES_128_GCM_SHA256,
            TLS13_AES_256_GCM_SHA384,
            TLS13_CHACHA20_POLY1305_SHA256,
        ],
        ..ring::default_provider()
    })
}

/// What an error of the library means to people. `role` is what the other side is asked for, `me`
/// this side's key.
fn explained(e: rustls::Error, verifier: &Verifier, role: Role, me: PublicKey) -> TlsError {
    if let Some(rejected) = verifier.take_rejected() {
        return rejected;
    }
    match e {
        rustls::Error::NoApplicationProtocol
        | rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol) => {
            TlsError::Version
        }
        rustls::Error::AlertReceived(AlertDescription::UnknownCA) => TlsError::StrangerThere(me),
        rustls::Error::AlertReceived(AlertDescription::AccessDenied) => {
            let what = match role {
                Role::Receive => "send VMs there",
                Role::Send => "receive VMs from there",
            };
            TlsError::NotForThisThere { key: me, what }
        }
        rustls::Error::AlertReceived(AlertDescription::CertificateExpired) => TlsError::TimeThere,
        e => TlsError::Tls(e),
    }
}
