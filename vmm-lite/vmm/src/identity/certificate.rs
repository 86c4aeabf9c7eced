//! Certificates: X.509, self-signed.
//!
//! They certify a key for a period, and nothing else: the name in all of them is the same, and
//! means nothing.

use super::{
    Error,
    key::{PublicKey, SPKI},
};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime, alg_id};
use std::{
    ops::Range,
    time::{Duration, SystemTime},
};
use webpki::{EndEntityCert, KeyUsage, ring::ED25519};

const NAME: &str = "vmm-lite";
/// [`NAME`] encoded as an X.501 name with nothing but a common name.
const SUBJECT: &[u8] = b"\x31\x11\x30\x0f\x06\x03\x55\x04\x03\x0c\x08vmm-lite";
/// The latest time that a certificate can express, the end of the year 9999.
const FOREVER: Duration = Duration::from_secs(253_402_300_799);

/// Makes a certificate for a key.
///
/// # Errors
/// [`Error::Make`].
pub fn make(key: &KeyPair, validity: Range<SystemTime>) -> Result<CertificateDer<'static>, Error> {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, NAME);
    let mut params = CertificateParams::default();
    params.distinguished_name = name;
    params.not_before = validity.start.into();
    params.not_after = validity.end.into();
    let made = params.self_signed(key);
    let made = made.map_err(|e| Error::Make { what: "a certificate", why: e.to_string() })?;
    Ok(made.der().clone())
}

/// The key of a certificate, with nothing checked.
///
/// # Errors
/// The certificate's error.
pub fn key_of(certificate: &CertificateDer<'_>) -> Result<PublicKey, webpki::Error> {
    let parsed = EndEntityCert::try_from(certificate)?;
    let info = parsed.subject_public_key_info();
    // Tag and length of the outermost sequence, then the prefix of every Ed25519 key.
    let key = info.strip_prefix(&[0x30, 0x2a]).and_then(|rest| rest.strip_prefix(&SPKI));
    let key = key.and_then(|key| key.try_into().ok());
    key.map(PublicKey).ok_or_else(|| {
        let (signature_algorithm_id, public_key_algorithm_id) =
            (alg_id::ED25519.as_ref().to_vec(), info.to_vec());
        webpki::Error::UnsupportedSignatureAlgorithmForPublicKeyContext(
            webpki::UnsupportedSignatureAlgorithmForPublicKeyContext {
                signature_algorithm_id,
                public_key_algorithm_id,
            },
        )
    })
}

/// Checks that `key` signed its own certificate, and that it is valid at `now`.
///
/// # Errors
/// The certificate's error.
pub fn check(
    certificate: &CertificateDer<'_>,
    key: &PublicKey,
    now: UnixTime,
) -> Result<(), webpki::Error> {
    if key_of(certificate)? != *key {
        return Err(webpki::Error::UnknownIssuer);
    }
    let anchor = TrustAnchor {
        subject: SUBJECT.into(),
        subject_public_key_info: key.spki().into(),
        name_constraints: None,
    };
    let parsed = EndEntityCert::try_from(certificate)?;
    parsed
        .verify_for_usage(&[ED25519], &[anchor], &[], now, KeyUsage::client_auth(), None, None)
        .map(drop)
}

/// A certificate's validity period.
///
/// # Errors
/// The certificate's error.
pub fn validity(certificate: &CertificateDer<'_>) -> Result<Range<SystemTime>, webpki::Error> {
    let key = key_of(certificate)?;
    let time = |t: UnixTime| SystemTime::UNIX_EPOCH + Duration::from_secs(t.as_secs());
    // The library reports the period only for a certificate outside of it.
    let start = match check(certificate, &key, UnixTime::since_unix_epoch(Duration::ZERO)) {
        Err(webpki::Error::CertNotValidYet { not_before, .. }) => time(not_before),
        Ok(()) => SystemTime::UNIX_EPOCH,
        Err(e) => return Err(e),
    };
    let end = match check(certificate, &key, UnixTime::since_unix_epoch(FOREVER)) {
        Err(webpki::Error::CertExpired { not_after, .. }) => time(not_after),
        Ok(()) => SystemTime::UNIX_EPOCH + FOREVER,
        Err(e) => return Err(e),
    };
    Ok(start..end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::PKCS_ED25519;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn unix(seconds: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(seconds))
    }

    fn pair() -> (KeyPair, PublicKey) {
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let public = PublicKey(key.public_key_raw().try_into().unwrap());
        (key, public)
    }

    #[test]
    fn a_certificate_is_valid_for_its_key_in_its_period() {
        let (key, public) = pair();
        let certificate = make(&key, at(1000)..at(2000)).unwrap();
        assert_eq!(key_of(&certificate).unwrap(), public);
        check(&certificate, &public, unix(1500)).unwrap();
        assert_eq!(validity(&certificate).unwrap(), at(1000)..at(2000));
        let wrong = |now| check(&certificate, &public, unix(now)).unwrap_err();
        assert!(matches!(wrong(999), webpki::Error::CertNotValidYet { .. }));
        assert!(matches!(wrong(2001), webpki::Error::CertExpired { .. }));
        let (_, other) = pair();
        check(&certificate, &other, unix(1500)).unwrap_err();
    }

    #[test]
    fn a_certificate_changed_anywhere_is_invalid() {
        let (key, public) = pair();
        let certificate = make(&key, at(1000)..at(2000)).unwrap();
        for byte in 0..certificate.len() {
            let mut changed = certificate.to_vec();
            changed[byte] ^= 1;
            assert!(check(&changed.into(), &public, unix(1500)).is_err(), "byte {byte}");
        }
    }

    #[test]
    fn keys_of_another_kind_are_refused() {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let certificate = make(&key, at(1000)..at(2000)).unwrap();
        key_of(&certificate).unwrap_err();
        key_of(&CertificateDer::from(vec![0x30; 100])).unwrap_err();
    }
}
