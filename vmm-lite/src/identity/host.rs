//! This host's key pair and certificate.

use super::{Error, PublicKey, certificate};
use rcgen::{KeyPair, PKCS_ED25519};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, UnixTime, pem::PemObject};
use std::{
    ops::Range,
    time::{Duration, SystemTime},
};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// Certificates begin that long before they are made, for hosts whose clocks are behind.
const SKEW: Duration = DAY;
/// Whoever has a certificate that ends so soon is told.
const SOON: Duration = Duration::from_secs(30 * 24 * 3600);

/// A host, as it proves who it is.
#[derive(Debug)]
pub struct HostIdentity {
    pub(crate) key: PrivatePkcs8KeyDer<'static>,
    pub(crate) certificate: CertificateDer<'static>,
    public: PublicKey,
}

impl HostIdentity {
    /// A new key pair, with a certificate for `days` from now.
    ///
    /// # Errors
    /// [`Error::Make`].
    pub fn generate(days: u32) -> Result<Self, Error> {
        Self::generate_for(validity_from_now(days))
    }

    /// A new key pair, with a certificate for any time.
    ///
    /// # Errors
    /// [`Error::Make`].
    pub fn generate_for(validity: Range<SystemTime>) -> Result<Self, Error> {
        let pair = KeyPair::generate_for(&PKCS_ED25519);
        let pair = pair.map_err(|e| Error::Make { what: "a key pair", why: e.to_string() })?;
        Self::of(&pair, certificate::make(&pair, validity)?)
    }

    /// The same key, with a new certificate.
    ///
    /// # Errors
    /// [`Error::Make`].
    pub fn renewed(&self, days: u32) -> Result<Self, Error> {
        let pair = pair(&self.key)?;
        Self::of(&pair, certificate::make(&pair, validity_from_now(days))?)
    }

    fn of(pair: &KeyPair, certificate: CertificateDer<'static>) -> Result<Self, Error> {
        let public = pair.public_key_raw().try_into().map(PublicKey);
        let public = public.map_err(|_| Error::Broken("the key is not Ed25519's".into()))?;
        Ok(Self { key: pair.serialize_der().into(), certificate, public })
    }

    /// From what [`pem`](Self::pem) gave.
    ///
    /// # Errors
    /// [`Error::Broken`].
    pub fn from_pem(key: &str, certificate: &str) -> Result<Self, Error> {
        let broken = |e: rustls::pki_types::pem::Error| Error::Broken(e.to_string());
        let key = PrivatePkcs8KeyDer::from_pem_slice(key.as_bytes()).map_err(broken)?;
        let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).map_err(broken)?;
        let this = Self::of(&pair(&key)?, certificate)?;
        match certificate::validity(&this.certificate) {
            Err(e) => Err(Error::Broken(e.to_string())),
            Ok(_) if certificate::key_of(&this.certificate).ok() != Some(this.public) => {
                Err(Error::Broken("the certificate is another key's".into()))
            }
            Ok(_) => Ok(this),
        }
    }

    /// Key and certificate as text.
    #[must_use]
    pub fn pem(&self) -> (String, String) {
        let text = |label: &str, bytes: &[u8]| pem::encode(&pem::Pem::new(label, bytes));
        (text("PRIVATE KEY", self.key.secret_pkcs8_der()), text("CERTIFICATE", &self.certificate))
    }

    /// What others know it by.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// When others take it.
    ///
    /// # Errors
    /// [`Error::Broken`].
    pub fn validity(&self) -> Result<Range<SystemTime>, Error> {
        certificate::validity(&self.certificate).map_err(|e| Error::Broken(e.to_string()))
    }

    /// Checks that others would take it now; says when that ends soon.
    ///
    /// # Errors
    /// [`Error::Validity`].
    pub fn check_validity(&self, now: SystemTime) -> Result<Option<String>, Error> {
        let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        match certificate::check(&self.certificate, &self.public, UnixTime::since_unix_epoch(since))
        {
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
            format!("this host's certificate expires in {days} days; `vmm-lite identity renew` prolongs it")
        }))
    }
}

fn pair(key: &PrivatePkcs8KeyDer<'_>) -> Result<KeyPair, Error> {
    KeyPair::from_pkcs8_der_and_sign_algo(key, &PKCS_ED25519)
        .map_err(|e| Error::Broken(e.to_string()))
}

fn validity_from_now(days: u32) -> Range<SystemTime> {
    let now = SystemTime::now();
    now - SKEW..now + DAY * days
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_survives_being_text() {
        let one = HostIdentity::generate(10).unwrap();
        let (key, certificate) = one.pem();
        let again = HostIdentity::from_pem(&key, &certificate).unwrap();
        assert_eq!((again.public(), &again.certificate), (one.public(), &one.certificate));
        assert!(!format!("{one:?}").contains(&key[40..60]), "keys are not printed");
    }

    #[test]
    fn a_key_does_not_go_with_anothers_certificate() {
        let [one, other] = [(), ()].map(|()| HostIdentity::generate(10).unwrap().pem());
        let said = HostIdentity::from_pem(&one.0, &other.1).unwrap_err().to_string();
        assert!(said.contains("another key's"), "{said}");
        for (key, certificate) in [("", ""), (&one.0[..60], &one.1[..]), (&one.1, &one.0)] {
            HostIdentity::from_pem(key, certificate).unwrap_err();
        }
    }

    #[test]
    fn it_is_said_when_a_certificate_ends_or_is_about_to() {
        let now = SystemTime::now();
        let of = |from: SystemTime, to: SystemTime| {
            HostIdentity::generate_for(from..to).unwrap().check_validity(now)
        };
        assert_eq!(of(now - DAY, now + DAY * 100).unwrap(), None);
        assert!(of(now - DAY, now + DAY * 10).unwrap().unwrap().contains("expires in"));
        assert!(of(now - DAY * 9, now - DAY).unwrap_err().to_string().contains("has expired"));
        assert!(of(now + DAY, now + DAY * 9).unwrap_err().to_string().contains("not valid yet"));
    }

    #[test]
    fn renewed_it_is_the_same_host() {
        let now = SystemTime::now();
        let old = HostIdentity::generate_for(now - DAY * 9..now - DAY).unwrap();
        let new = old.renewed(100).unwrap();
        assert_eq!(new.public(), old.public());
        assert_eq!(new.check_validity(now).unwrap(), None);
        // A host whose clock is behind takes it too.
        new.check_validity(now - Duration::from_secs(3600)).unwrap();
    }
}
