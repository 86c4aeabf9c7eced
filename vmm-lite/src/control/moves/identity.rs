//! The member `identity` of a `migrate` request: what a VM's process needs to prove this host's
//! identity in one move. The signer's socket comes with the request.

use super::Error;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::{fs::File, os::fd::OwnedFd, sync::Arc};
use vmm::{
    identity::{
        HostCertificate, PublicKey, Role, TrustStore, Trusted,
        signer::{RemoteKey, Side},
    },
    migration::{connection::Transport, credentials::PLAINTEXT_WARNING, tls::Credentials},
};

/// Most keys that are named apart from the hosts that may receive.
const EXPECTED_MAX: usize = 8;

/// The identity as a request contains it. The signer's socket comes with the request.
#[derive(Serialize, Deserialize)]
struct Brought {
    certificate: String,
    /// The hosts that may receive VMs: key and name.
    receivers: Vec<(String, String)>,
    /// Of these, the keys that may answer; without it, any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expected: Option<Vec<String>>,
    /// Must be absent: no request may contain a key.
    #[serde(default, skip_serializing)]
    key: Option<Value>,
}

/// The member `identity` of a `migrate` request.
///
/// # Errors
/// [`Error::Transport`].
pub fn to_request(
    certificate: &HostCertificate,
    trusted: &TrustStore,
    expected: &[PublicKey],
) -> Result<Value, Error> {
    // The others are needed only for their names; a request has no room to name many keys twice.
    let few = expected.len() <= EXPECTED_MAX;
    let receivers = trusted.that_may(Role::Receive);
    let receivers = receivers.filter(|host| few || expected.contains(&host.key));
    let receivers = receivers.map(|host| (host.key.to_string(), host.name.clone())).collect();
    let expected = few.then(|| expected.iter().map(PublicKey::to_string).collect());
    let brought = Brought { certificate: certificate.pem(), receivers, expected, key: None };
    serde_json::to_value(brought).map_err(|e| Error::Transport(e.to_string()))
}

/// Reads how a `migrate` request wants the move secured. `files` came with it.
///
/// # Errors
/// [`Error::Transport`], [`Error::Identity`].
pub fn from_request(request: &Map<String, Value>, files: Vec<File>) -> Result<Transport, Error> {
    match (request.get("identity"), request.get("plaintext")) {
        (Some(brought), None | Some(Value::Bool(false))) => brings(brought, files),
        (None, Some(Value::Bool(true))) if files.is_empty() => {
            tracing::warn!("{PLAINTEXT_WARNING}");
            Ok(Transport::Plaintext)
        }
        _ => Err(Error::Transport(
            "a move needs an identity, or `plaintext`: see docs/control-socket.md".into(),
        )),
    }
}

fn brings(brought: &Value, files: Vec<File>) -> Result<Transport, Error> {
    let brought = Brought::deserialize(brought)
        .map_err(|e| Error::Transport(format!("the identity is invalid: {e}")))?;
    if brought.key.is_some() {
        return Err(Error::Transport(
            "a process that runs a guest accepts no private key, only the socket of a signer \
             (see docs/control-socket.md, or use the `vmm-lite migrate` of this \
             version)"
                .into(),
        ));
    }
    let [signer] = <[File; 1]>::try_from(files).map_err(|files| {
        let n = files.len();
        Error::Transport(format!(
            "an identity needs one descriptor, the signer's socket, and not {n}"
        ))
    })?;
    let certificate = HostCertificate::from_pem(&brought.certificate)?;
    let mut trusted = TrustStore::default();
    for (key, name) in brought.receivers {
        let (key, at) = (key.parse()?, Vec::new());
        trusted.add(Trusted { key, name, send: false, receive: true, at })?;
    }
    let expected = brought
        .expected
        .map(|keys| keys.iter().map(|key| key.parse()).collect::<Result<Arc<[PublicKey]>, _>>());
    Ok(Transport::Tls(Credentials {
        certificate,
        key: Arc::new(RemoteKey::new(OwnedFd::from(signer), Side::Source)),
        trusted: Arc::new(trusted),
        expected: expected.transpose()?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use vmm::identity::IdentityDir;

    fn dir() -> (tempfile::TempDir, IdentityDir) {
        let top = tempfile::tempdir().unwrap();
        let dir = IdentityDir::find(Some(top.path().join("identity")));
        (top, dir)
    }

    fn socket() -> Vec<File> {
        let (socket, _) = std::os::unix::net::UnixStream::pair().unwrap();
        vec![File::from(OwnedFd::from(socket))]
    }

    fn request(dir: &IdentityDir, expected: &[PublicKey]) -> Map<String, Value> {
        let certificate = dir.load().unwrap().certificate().clone();
        let identity = to_request(&certificate, &dir.trusted().unwrap(), expected).unwrap();
        Map::from_iter([("identity".to_owned(), identity)])
    }

    #[test]
    fn a_request_brings_the_certificate_the_receivers_and_no_key() {
        let (_top, dir) = dir();
        let made = dir.init(10).unwrap();
        let host = |n: u8, name: &str, send, receive| Trusted {
            key: PublicKey([n; 32]),
            name: name.into(),
            send,
            receive,
            at: Vec::new(),
        };
        dir.change_trusted(|store| store.add(host(1, "a", true, false))).unwrap();
        dir.change_trusted(|store| store.add(host(2, "b", true, true))).unwrap();
        let asked = request(&dir, &[PublicKey([2; 32])]);
        let text = Value::from(asked.clone()).to_string();
        assert!(!text.contains("PRIVATE") && !text.contains("\"key\""), "{text}");
        let Transport::Tls(brought) = from_request(&asked, socket()).unwrap() else {
            panic!("plaintext")
        };
        assert_eq!(brought.certificate, *made.certificate());
        assert_eq!(brought.trusted.hosts(), [host(2, "b", false, true)]);
        assert_eq!(brought.expected.as_deref(), Some(&[PublicKey([2; 32])][..]));
    }

    #[test]
    fn a_private_key_is_refused_and_so_is_an_identity_without_its_socket() {
        let (_top, dir) = dir();
        let (key, _) = dir.init(10).unwrap().pem();
        let mut asked = request(&dir, &[]);
        let two = socket().into_iter().chain(socket()).collect();
        for files in [Vec::new(), two] {
            let said = from_request(&asked, files).unwrap_err().to_string();
            assert!(said.contains("one descriptor"), "{said}");
        }
        asked["identity"]["key"] = json!(key);
        let said = from_request(&asked, socket()).unwrap_err().to_string();
        assert!(said.contains("accepts no private key"), "{said}");
        assert!(!said.contains(&key[40..60]), "nor is it repeated");
    }

    #[test]
    fn the_largest_request_is_one_that_the_socket_takes() {
        let (_top, dir) = dir();
        dir.init(10).unwrap();
        dir.change_trusted(|store| {
            (0..vmm::identity::trust::HOSTS_MAX).try_for_each(|n| {
                let key = PublicKey(std::array::from_fn(|i| (n >> (8 * (i % 2))) as u8));
                let (name, at) = (format!("{n:0>64}"), Vec::new());
                store.add(Trusted { key, name, send: true, receive: true, at })
            })
        })
        .unwrap();
        let all: Vec<PublicKey> = dir.trusted().unwrap().hosts().iter().map(|h| h.key).collect();
        for expected in [&all[..1], &all[..EXPECTED_MAX], &all] {
            let asked = request(&dir, expected);
            let size = Value::from(asked.clone()).to_string().len() + 1024;
            assert!(size < api::REQUEST_MAX, "{size}");
            let Transport::Tls(brought) = from_request(&asked, socket()).unwrap() else {
                panic!("plaintext")
            };
            let may = |key: &PublicKey| {
                let listed = brought.expected.as_deref().is_none_or(|keys| keys.contains(key));
                listed && brought.trusted.get(key).is_some()
            };
            assert!(all.iter().all(|key| may(key) == expected.contains(key)));
        }
    }

    #[test]
    fn plaintext_is_asked_for_or_not_there() {
        let plaintext = Map::from_iter([("plaintext".to_owned(), true.into())]);
        assert!(matches!(from_request(&plaintext, Vec::new()), Ok(Transport::Plaintext)));
        from_request(&plaintext, socket()).unwrap_err();
        let (_top, dir) = dir();
        dir.init(10).unwrap();
        let mut both = request(&dir, &[]);
        both.insert("plaintext".into(), true.into());
        for wrong in [both, Map::new(), Map::from_iter([("plaintext".to_owned(), false.into())])] {
            assert!(matches!(from_request(&wrong, Vec::new()), Err(Error::Transport(_))));
        }
    }
}
