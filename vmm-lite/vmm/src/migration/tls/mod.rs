//! TLS 1.3 between hosts that trust each other's keys.
//!
//! Each side proves that it has the key of its self-signed certificate; each accepts the other only
//! if that key is in its own [`TrustStore`] for what it is about to do. No session is resumed, no
//! data is sent before the handshake is done, and no handshake message follows it: only messages
//! do.
//!
//! - [`verifier`]: the other host's identity and permissions
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

/// Why hosts do not connect.
#[derive(thiserror::Error, Debug)]
pub enum TlsError {
    /// The other host is not known.
    #[error(
        "the other host's key {0} is not trusted here. If it is the right host (`vmm-lite identity \
         show` there prints its key), run here: \
         vmm-lite identity trust {0}"
    )]
    Stranger(PublicKey),
    /// A host that is trusted, but not for this role.
    #[error(
        "{name} ({key}) is trusted here, but not to {what}; `vmm-lite identity trust {key} {name}` \
         lets it do both"
    )]
    NotForThis {
        /// Its name on this host.
        name: String,
        /// Its key.
        key: PublicKey,
        /// The role that it may not have.
        what: &'static str,
    },
    /// A certificate outside of its validity.
    #[error(
        "the certificate of {name} ({key}) {what}: `vmm-lite identity renew` there makes a new \
         one; are the clocks of both hosts right?"
    )]
    Time {
        /// Its name on this host.
        name: String,
        /// Its key.
        key: PublicKey,
        /// Before or after.
        what: &'static str,
    },
    /// An invalid certificate.
    #[error("the other host's certificate is not one that vmm-lite makes")]
    Certificate(#[source] webpki::Error),
    /// Another host than the one that the move was begun with.
    #[error("another host answers there than the one that the move was begun with ({began})")]
    Another {
        /// The host that it was begun with.
        began: PublicKey,
    },
    /// The host, trusted or not, is not the one that is expected at that address.
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
        /// Its name on this host, if it is trusted.
        name: Option<String>,
        /// The expected keys.
        expected: Vec<PublicKey>,
    },
    /// The other host does not know this one.
    #[error(
        "the other host does not trust this one's key, or expects another host's at this address. \
         If it should trust it, run there: vmm-lite identity trust {0}"
    )]
    StrangerThere(PublicKey),
    /// The other host knows this one, but not for this role.
    #[error(
        "the other host trusts this one's key, but not to {what}; run there: vmm-lite identity \
         trust {key}"
    )]
    NotForThisThere {
        /// This host's key.
        key: PublicKey,
        /// The role that it may not have.
        what: &'static str,
    },
    /// This host's certificate is outside of its validity by the other's clock.
    #[error(
        "the other host says that this one's certificate has expired or is not valid yet; \
         `vmm-lite identity renew` here makes a new one; are \
         the clocks of both hosts right?"
    )]
    TimeThere,
    /// The versions differ.
    #[error(
        "the other host speaks another version of the migration protocol than {PROTOCOL_VERSION}: \
         run the same vmm-lite on both"
    )]
    Version,
    /// The other side does not speak TLS.
    #[error(
        "the other side speaks plaintext: leave --plaintext out there, or use it on both sides"
    )]
    Plaintext,
    /// More data than a handshake has.
    #[error("the other side did not finish the handshake")]
    Handshake,
    /// Any other error.
    #[error("TLS with the other side failed")]
    Tls(#[from] rustls::Error),
}

fn in_brackets(name: &Option<String>) -> String {
    name.as_ref().map_or(String::new(), |name| format!(" ({name})"))
}

fn keys(keys: &[PublicKey]) -> String {
    keys.iter().map(PublicKey::to_string).collect::<Vec<_>>().join(" or ")
}

/// This host's credentials, and the hosts that it accepts.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// This host's certificate.
    pub certificate: HostCertificate,
    /// The signer: in a process that runs a guest never the key itself.
    pub key: Arc<dyn SigningKey>,
    /// The trusted hosts.
    pub trusted: Arc<TrustStore>,
    /// Of the hosts that may receive, those that may answer; `None`: any.
    pub expected: Option<Arc<[PublicKey]>>,
}

impl Credentials {
    /// With the private key in this process's memory: for processes without a guest.
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

    /// For moving a VM to a host; with `pinned` only to the one with that key.
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
        // The key identifies the other host; its name and address do not.
        let name = ServerName::IpAddress(IpAddr::V4(Ipv4Addr::UNSPECIFIED).into());
        Ok((UnbufferedClientConnection::new(Arc::new(config), name)?, verifier))
    }

    /// For receiving a VM from a host.
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

/// The protocol inside, by the name that the handshake negotiates.
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

/// Describes an error of the library in words. `role` is the other side's role, `me` this side's
/// key.
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
