//! The member `identity` of a `migrate` request: what a VM's process needs to prove this host's
//! identity in one move. The signer's socket comes with the request.

use super::Error;
use api::verb::Identity;
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

/// The member `identity` of a `migrate` request.
#[must_use]
pub fn to_request(
    certificate: &HostCertificate,
    trusted: &TrustStore,
    expected: &[PublicKey],
) -> Identity {
    // The others are needed only for their names; a request has no room to name many keys twice.
    let few = expected.len() <= EXPECTED_MAX;
    let receivers = trusted.that_may(Role::Receive);
    let receivers = receivers.filter(|host| few || expected.contains(&host.key));
    let receivers = receivers.map(|host| (host.key.to_string(), host.name.clone())).collect();
    let expected = few.then(|| expected.iter().map(PublicKey::to_string).collect());
    Identity { certificate: certificate.pem(), receivers, expected, key: None }
}

/// Reads how a `migrate` request, or `protect`, wants its connection secured: the members
/// `identity` and `plaintext`. `files` came with it.
///
/// # Errors
/// [`Error::Transport`], [`Error::Identity`].
pub fn from_request(
    identity: Option<&Identity>,
    plaintext: bool,
    files: Vec<File>,
) -> Result<Transport, Error> {
    match (identity, plaintext) {
        (Some(brought), false) => brings(brought, files),
        (None, true) if files.is_empty() => {
            tracing::warn!("{PLAINTEXT_WARNING}");
            Ok(Transport::Plaintext)
        }
        _ => Err(Error::Transport(
            "a move needs an identity, or `plaintext`: see docs/control-socket.md".into(),
        )),
    }
}

fn brings(brought: &Identity, files: Vec<File>) -> Result<Transport, Error> {
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
    for (key, name) in &brought.receivers {
        let (key, name, at) = (key.parse()?, name.clone(), Vec::new());
        trusted.add(Trusted { key, name, send: false, receive: true, at })?;
    }
    let expected = brought
        .expected
        .as_ref()
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
    use api::Request;
    use api::verb::Migrate;
    use vmm::identity::IdentityDir;

    fn of(request: &Migrate, files: Vec<File>) -> Result<Transport, Error> {
        from_request(request.identity.as_ref(), request.plaintext, files)
    }

    fn dir() -> (tempfile::TempDir, IdentityDir) {
        let top = tempfile::tempdir().unwrap();
        let dir = IdentityDir::find(Some(top.path().join("identity")));
        (top, dir)
    }

    fn socket() -> Vec<File> {
        let (socket, _) = std::os::unix::net::UnixStream::pair().unwrap();
        vec![File::from(OwnedFd::from(socket))]
    }

    fn request(dir: &IdentityDir, expected: &[PublicKey]) -> Migrate {
        let certificate = dir.load().unwrap().certificate().clone();
        let identity = to_request(&certificate, &dir.trusted().unwrap(), expected);
        Migrate { identity: Some(identity), ..Migrate::default() }
    }

    fn line(request: &Migrate) -> String {
        serde_json::to_string(&Request::from(request.clone())).unwrap()
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
        let text = line(&asked);
        assert!(!text.contains("PRIVATE") && !text.contains("\"key\""), "{text}");
        let Transport::Tls(brought) = of(&asked, socket()).unwrap() else { panic!("plaintext") };
        assert_eq!(brought.certificate, *made.certificate());
        assert_eq!(brought.trusted.hosts(), [host(2, "b", false, true)]);
        assert_eq!(brought.expected.as_deref(), Some(&[PublicKey([2; 32])][..]));
    }

    #[test]
    fn a_private_key_is_refused_and_so_is_an_identity_without_its_socket() {
        let (_top, dir) = dir();
        let (key, _) = dir.init(10).unwrap().pem();
        let asked = request(&dir, &[]);
        let two = socket().into_iter().chain(socket()).collect();
        for files in [Vec::new(), two] {
            let said = of(&asked, files).unwrap_err().to_string();
            assert!(said.contains("one descriptor"), "{said}");
        }
        let with_key =
            line(&asked).replace("\"receivers\"", &format!("\"key\":{key:?},\"receivers\""));
        let Some(Request::Migrate(with_key)) = Request::read(&mut with_key.as_bytes()).unwrap()
        else {
            panic!("{with_key}")
        };
        let said = of(&with_key, socket()).unwrap_err().to_string();
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
            let size = line(&asked).len() + 1024;
            assert!(size < api::REQUEST_MAX, "{size}");
            let Transport::Tls(brought) = of(&asked, socket()).unwrap() else {
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
        let plaintext = Migrate { plaintext: true, ..Migrate::default() };
        assert!(matches!(of(&plaintext, Vec::new()), Ok(Transport::Plaintext)));
        of(&plaintext, socket()).unwrap_err();
        let (_top, dir) = dir();
        dir.init(10).unwrap();
        let both = Migrate { plaintext: true, ..request(&dir, &[]) };
        for wrong in [both, Migrate::default()] {
            assert!(matches!(of(&wrong, Vec::new()), Err(Error::Transport(_))));
        }
    }
}
