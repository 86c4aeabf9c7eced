//! This host's key pair and certificate.

use super::{Error, HostCertificate, PublicKey, certificate};
use rcgen::{KeyPair, PKCS_ED25519};
use rustls::{
    crypto::ring,
    pki_types::{CertificateDer, PrivatePkcs8KeyDer, pem::PemObject},
    sign::SigningKey,
};
use std::{
    ops::Range,
    sync::Arc,
    time::{Duration, SystemTime},
};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// How long before now certificates become valid, for hosts whose clocks are behind.
const SKEW: Duration = DAY;

/// A host's key pair and certificate. No process that runs a guest may have it: those have a
/// [`HostCertificate`], and a [`signer`](super::signer) that signs for them.
#[derive(Debug)]
pub struct HostIdentity {
    key: PrivatePkcs8KeyDer<'static>,
    certificate: HostCertificate,
}

impl HostIdentity {
    /// Makes a key pair, with a certificate for `days` from now.
    ///
    /// # Errors
    /// [`Error::Make`].
    pub fn generate(days: u32) -> Result<Self, Error> {
        Self::generate_for(validity_from_now(days))
    }

    /// Makes a key pair, with a certificate for any period.
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
        let certificate = HostCertificate::from_der(certificate)?;
        if pair.public_key_raw() != certificate.public().0 {
            return Err(Error::Broken("the certificate is another key's".into()));
        }
        Ok(Self { key: pair.serialize_der().into(), certificate })
    }

    /// Parses what [`pem`](Self::pem) returned.
    ///
    /// # Errors
    /// [`Error::Broken`].
    pub fn from_pem(key: &str, certificate: &str) -> Result<Self, Error> {
        let broken = |e: rustls::pki_types::pem::Error| Error::Broken(e.to_string());
        let key = PrivatePkcs8KeyDer::from_pem_slice(key.as_bytes()).map_err(broken)?;
        let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).map_err(broken)?;
        Self::of(&pair(&key)?, certificate)
    }

    /// Key and certificate as text.
    #[must_use]
    pub fn pem(&self) -> (String, String) {
        let key = pem::Pem::new("PRIVATE KEY", self.key.secret_pkcs8_der());
        (pem::encode(&key), self.certificate.pem())
    }

    /// The public half.
    #[must_use]
    pub fn certificate(&self) -> &HostCertificate {
        &self.certificate
    }

    /// The key by which other hosts know this one.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        self.certificate.public()
    }

    /// The private key in the TLS library's form. It stays in the process's memory.
    ///
    /// # Errors
    /// [`Error::Broken`].
    pub fn signing_key(&self) -> Result<Arc<dyn SigningKey>, Error> {
        ring::sign::any_eddsa_type(&self.key).map_err(|e| Error::Broken(e.to_string()))
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
    fn a_host_key_survives_encoding_as_text() {
        let one = HostIdentity::generate(10).unwrap();
        let (key, certificate) = one.pem();
        let again = HostIdentity::from_pem(&key, &certificate).unwrap();
        assert_eq!(again.certificate(), one.certificate());
        assert!(!format!("{one:?}").contains(&key[40..60]), "keys are not printed");
    }

    #[test]
    fn a_key_with_the_certificate_of_another_is_refused() {
        let [one, other] = [(), ()].map(|()| HostIdentity::generate(10).unwrap().pem());
        let said = HostIdentity::from_pem(&one.0, &other.1).unwrap_err().to_string();
        assert!(said.contains("another key's"), "{said}");
        for (key, certificate) in [("", ""), (&one.0[..60], &one.1[..]), (&one.1, &one.0)] {
            HostIdentity::from_pem(key, certificate).unwrap_err();
        }
    }

    #[test]
    fn certificates_that_expire_soon_are_warned_about() {
        let now = SystemTime::now();
        let of = |from: SystemTime, to: SystemTime| {
            HostIdentity::generate_for(from..to).unwrap().certificate().check_validity(now)
        };
        assert_eq!(of(now - DAY, now + DAY * 100).unwrap(), None);
        assert!(of(now - DAY, now + DAY * 10).unwrap().unwrap().contains("expires in"));
        assert!(of(now - DAY * 9, now - DAY).unwrap_err().to_string().contains("has expired"));
        assert!(of(now + DAY, now + DAY * 9).unwrap_err().to_string().contains("not valid yet"));
    }

    #[test]
    fn a_renewed_host_keeps_its_key() {
        let now = SystemTime::now();
        let old = HostIdentity::generate_for(now - DAY * 9..now - DAY).unwrap();
        let new = old.renewed(100).unwrap();
        assert_eq!(new.public(), old.public());
        assert_eq!(new.certificate().check_validity(now).unwrap(), None);
        // A host whose clock is behind accepts it too.
        new.certificate().check_validity(now - Duration::from_secs(3600)).unwrap();
    }
}
