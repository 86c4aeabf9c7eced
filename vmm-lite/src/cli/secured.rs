//! How a verb that has the VM's process connect to another host secures that: the other host's
//! identity, this one's signer, and a connector.

use super::identity;
use crate::control::moves;
use api::{Client, verb};
use std::net::SocketAddr;
use vmm::{
    host::confine::Mode as Seccomp,
    identity::{
        Expected, IdentityDir, Location, PublicKey, expected,
        signer::{self, Signing},
    },
    migration::{
        address::Address,
        connector::Connector,
        credentials::{self, PLAINTEXT_WARNING},
    },
};

/// See the module.
pub struct Secured {
    pub dir: IdentityDir,
    pub signing: Signing,
    pub expected: Expected,
    /// The member `identity` of the request.
    pub member: verb::Identity,
}

impl Secured {
    /// For a connection to `to`; `None` for plaintext. Call it while there is only one thread.
    ///
    /// # Errors
    /// If this host has no identity, or it is not known which host is expected there.
    pub fn of(
        security: &identity::Security,
        to: &Address,
        first_use: bool,
    ) -> Result<Option<Self>, Box<dyn std::error::Error>> {
        if let Some(dir) = security.dir() {
            return Self::new(dir, to, first_use).map(Some);
        }
        eprintln!("vmm-lite: warning: {PLAINTEXT_WARNING}");
        no_key(to)?;
        Ok(None)
    }

    /// Determines the expected hosts, and starts the signer.
    fn new(
        dir: IdentityDir,
        to: &Address,
        first_use: bool,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        let signer = signer::start(&dir, signer::Side::Source, Seccomp::Kill)?;
        let trusted = dir.trusted()?;
        let expected = expected(&trusted, to.host_port(), to.key(), first_use)?;
        let signing = signer.finish()?;
        credentials::check(&signing.certificate)?;
        let member = moves::identity::to_request(&signing.certificate, &trusted, &expected.keys);
        Ok(Self { dir, signing, expected, member })
    }
}

/// Whether [`Secured::of`] would succeed, as far as that can be said without a signer.
///
/// # Errors
/// As it has.
pub fn check(
    security: &identity::Security,
    to: &Address,
) -> Result<(), Box<dyn std::error::Error>> {
    match security.dir() {
        Some(dir) => {
            credentials::check(dir.load()?.certificate())?;
            expected(&dir.trusted()?, to.host_port(), to.key(), false)?;
            Ok(())
        }
        None => no_key(to),
    }
}

fn no_key(to: &Address) -> Result<(), Box<dyn std::error::Error>> {
    match to.key() {
        Some(_) => Err("with --plaintext no host proves its key: leave #KEY out".into()),
        None => Ok(()),
    }
}

/// The connector, for a VM whose process has no network.
///
/// # Errors
/// If the VM does not answer.
pub fn connector_for(
    client: &mut Client,
    connector: Connector,
    addresses: &[SocketAddr],
) -> Result<Option<Connector>, Box<dyn std::error::Error>> {
    // Once this is answered the VM has admitted this client, and the next request is sent once.
    let stats = client.call(verb::Stats::default())?;
    if !stats.jail.is_some_and(|jail| jail.network) {
        return Ok(None);
    }
    connector.allow(addresses)?;
    Ok(Some(connector))
}

/// Expects the host with this key at its address from now on.
///
/// # Errors
/// If the directory cannot be changed.
pub fn expect_there(
    dir: &IdentityDir,
    to: &Address,
    key: Option<&str>,
) -> Result<(), vmm::identity::Error> {
    let key: PublicKey = key.unwrap_or_default().parse()?;
    let (host, port) = to.host_port();
    let name = dir.change_trusted(|store| {
        store.bind(&key, Location::of(host, port)).map(|host| host.name.clone())
    })?;
    eprintln!("vmm-lite: {name} ({key}) is expected at {} from now on", Location::of(host, port));
    Ok(())
}
