//! The public half of a host's identity: its certificate, and the key in it.

use super::{Error, PublicKey, certificate};
use rustls::pki_types::{CertificateDer, UnixTime, pem::PemObject};
use std::{
    ops::Range,
    time::{Duration, SystemTime},
};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// A certificate that expires sooner than this causes a warning.
const SOON: Duration = Duration::from_secs(30 * 24 * 3600);

/// A host's public credentials. They contain nothing secret.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostCertificate {
    der: CertificateDer<'static>,
    public: PublicKey,
}

impl HostCertificate {
    /// Parses its DER.
    ///
    /// # Errors
    /// [`Error::Broken`].
    pub fn from_der(der: CertificateDer<'static>) -> Result<Self, Error> {
        let broken = |e: webpki::Error| Error::Broken(e.to_string());
        certificate::validity(&der).map_err(broken)?;
        let public = certificate::key_of(&der).map_err(broken)?;
        Ok(Self { der, public })
    }

    /// Parses what [`pem`](Self::pem) returned.
    ///
    /// # Errors
    /// [`Error::Broken`].
    pub fn from_pem(text: &str) -> Result<Self, Error> {
        let der = CertificateDer::from_pem_slice(text.as_bytes());
        Self::from_der(der.map_err(|e| Error::Broken(e.to_string()))?)
    }

    /// Its text form.
    #[must_use]
    pub fn pem(&self) -> String {
        pem::encode(&pem::Pem::new("CERTIFICATE", &self.der[..]))
    }

    /// The certificate itself.
    #[must_use]
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// The key by which other hosts know this one.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// The period in which other hosts accept it.
    ///
    /// # Errors
    /// [`Error::Broken`].
    pub fn validity(&self) -> Result<Range<SystemTime>, Error> {
        certificate::validity(&self.der).map_err(|e| Error::Broken(e.to_string()))
    }

    /// Checks that other hosts would accept it at `now`. Returns a warning if it expires soon.
    ///
    /// # Errors
    /// [`Error::Validity`].
    pub fn check_validity(&self, now: SystemTime) -> Result<Option<String>, Error> {
        let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        match certificate::check(&self.der, &self.public, UnixTime::since_unix_epoch(since)) {
            Ok(()) => {}
            Err(webpki::Error::CertExpired { .. }) => return Err(Error::Validity("has expired")),
            Err(webpki::Error::CertNotValidYet { .. }) => {
                return Err(Error::Validity("is not valid yet"));
            }
            Err(e) => return Err(Error::Broken(e.to_string())),
        }
        let left = self.validity()?.end.duration_since(now).unwrap_or_default();
        let days = left.as_secs() / DAY.as_secs();
        Ok((left < SOON).then(|| {
            format!(
                "this host's certificate expires in {days} days; `vmm-lite identity renew` \
                 prolongs it"
            )
        }))
    }
}
