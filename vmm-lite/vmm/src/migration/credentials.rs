//! This host's credentials in a move.
//!
//! A process that receives reads the identity's directory, all but the private key: a
//! [signer](crate::identity::signer) has that. The process of a VM that moves away gets the
//! credentials for one move, and the signer's socket, with the request.

use super::{Error, tls::Credentials};
use crate::identity::{HostCertificate, IdentityDir, signer::RemoteKey};
use std::{sync::Arc, time::SystemTime};

/// The message where a connection between two hosts is not encrypted.
pub const PLAINTEXT_WARNING: &str = "the connection is neither encrypted nor authenticated \
    (--plaintext): any host on this network can read, change or take the VM";

/// Checks that other hosts would accept a certificate now. Logs its warnings.
///
/// # Errors
/// [`Error::Identity`].
pub fn check(certificate: &HostCertificate) -> Result<(), Error> {
    if let Some(warning) = certificate.check_validity(SystemTime::now())? {
        tracing::warn!("{warning}");
    }
    Ok(())
}

/// The credentials of `receive` and the hosts that it accepts, by the directory's current content.
///
/// # Errors
/// [`Error::Identity`].
pub fn for_receiving(
    dir: &IdentityDir,
    certificate: HostCertificate,
    key: RemoteKey,
) -> Result<Credentials, Error> {
    check(&certificate)?;
    let trusted = Arc::new(dir.trusted()?);
    Ok(Credentials { certificate, key: Arc::new(key), trusted, expected: None })
}
