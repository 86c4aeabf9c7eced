//! Who this host is in a move.
//!
//! `receive` reads its directory itself. For `migrate` the verb does, with the rights of whoever called it, and hands what is needed for one move to the
//! VM's process, which needs no right to read the directory.

use super::{Error, connection::Transport, tls::Credentials};
use crate::identity::{HostIdentity, IdentityDir, PublicKey, Role, TrustStore, Trusted};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::{sync::Arc, time::SystemTime};

/// Said where a move is not encrypted.
pub const PLAINTEXT_WARNING: &str = "the move is neither encrypted nor authenticated (--plaintext): whoever reaches this network can read, change or take the VM";

/// What a request brings of this host's identity.
#[derive(Serialize, Deserialize)]
struct Brought {
    key: String,
    certificate: String,
    /// The hosts that may receive VMs: key and name.
    receivers: Vec<(String, String)>,
}

/// Reads this host's identity and whom it trusts, and checks that others would take it. What people should know is logged.
///
/// # Errors
/// [`Error::Identity`].
pub fn read(dir: &IdentityDir) -> Result<Credentials, Error> {
    let identity = dir.load()?;
    if let Some(warning) = identity.check_validity(SystemTime::now())? {
        tracing::warn!("{warning}");
    }
    Ok(Credentials { identity: Arc::new(identity), trusted: Arc::new(dir.trusted()?) })
}

/// The members of a `migrate` request that say how: `plaintext`, or `identity`.
///
/// # Errors
/// [`Error::Identity`].
pub fn to_request(dir: Option<&IdentityDir>) -> Result<(&'static str, Value), Error> {
    let Some(dir) = dir else { return Ok(("plaintext", true.into())) };
    let Credentials { identity, trusted } = read(dir)?;
    let (key, certificate) = identity.pem();
    let receivers = trusted.that_may(Role::Receive);
    let receivers = receivers.map(|host| (host.key.to_string(), host.name.clone())).collect();
    let brought = Brought { key, certificate, receivers };
    let value = serde_json::to_value(brought).map_err(|e| Error::Transport(e.to_string()))?;
    Ok(("identity", value))
}

/// How a `migrate` request wants the move made.
///
/// # Errors
/// [`Error::Transport`], [`Error::Identity`].
pub fn from_request(request: &Map<String, Value>) -> Result<Transport, Error> {
    let wrong =
        |e: &dyn std::fmt::Display| Error::Transport(format!("the identity makes no sense: {e}"));
    match (request.get("identity"), request.get("plaintext")) {
        (Some(brought), None | Some(Value::Bool(false))) => {
            let brought = Brought::deserialize(brought).map_err(|e| wrong(&e))?;
            let identity = HostIdentity::from_pem(&brought.key, &brought.certificate)?;
            let mut trusted = TrustStore::default();
            for (key, name) in brought.receivers {
                let key: PublicKey = key.parse()?;
                trusted.add(Trusted { key, name, send: false, receive: true })?;
            }
            Ok(Transport::Tls(Credentials {
                identity: Arc::new(identity),
                trusted: Arc::new(trusted),
            }))
        }
        (None, Some(Value::Bool(true))) => {
            tracing::warn!("{PLAINTEXT_WARNING}");
            Ok(Transport::Plaintext)
        }
        _ => Err(Error::Transport(
            "a move needs either an identity or the wish to do without: see docs/control-socket.md"
                .into(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir() -> (tempfile::TempDir, IdentityDir) {
        let top = tempfile::tempdir().unwrap();
        let dir = IdentityDir::find(Some(top.path().join("identity")));
        (top, dir)
    }

    fn request(dir: Option<&IdentityDir>) -> Map<String, Value> {
        let (member, value) = to_request(dir).unwrap();
        Map::from_iter([(member.to_owned(), value)])
    }

    #[test]
    fn a_request_brings_the_identity_and_the_receivers() {
        let (_top, dir) = dir();
        let made = dir.init(10).unwrap();
        let host = |n: u8, name: &str, send, receive| Trusted {
            key: PublicKey([n; 32]),
            name: name.into(),
            send,
            receive,
        };
        dir.change_trusted(|store| store.add(host(1, "a", true, false))).unwrap();
        dir.change_trusted(|store| store.add(host(2, "b", true, true))).unwrap();
        let Transport::Tls(brought) = from_request(&request(Some(&dir))).unwrap() else {
            panic!("plaintext")
        };
        assert_eq!(brought.identity.public(), made.public());
        assert_eq!(brought.trusted.hosts(), [host(2, "b", false, true)]);
    }

    #[test]
    fn the_largest_request_is_one_that_the_socket_takes() {
        let (_top, dir) = dir();
        dir.init(10).unwrap();
        dir.change_trusted(|store| {
            (0..crate::identity::trust::HOSTS_MAX).try_for_each(|n| {
                let key = PublicKey(std::array::from_fn(|i| (n >> (8 * (i % 2))) as u8));
                store.add(Trusted { key, name: format!("{n:0>64}"), send: true, receive: true })
            })
        })
        .unwrap();
        let size = Value::from(request(Some(&dir))).to_string().len() + 1024;
        assert!(size < crate::control::REQUEST_MAX, "{size}");
    }

    #[test]
    fn plaintext_is_asked_for_or_not_there() {
        assert!(matches!(from_request(&request(None)), Ok(Transport::Plaintext)));
        let (_top, dir) = dir();
        dir.init(10).unwrap();
        let mut both = request(Some(&dir));
        both.insert("plaintext".into(), true.into());
        for wrong in [both, Map::new(), Map::from_iter([("plaintext".to_owned(), false.into())])] {
            assert!(matches!(from_request(&wrong), Err(Error::Transport(_))));
        }
    }
}
