//! etcd with TLS, and with users.

mod common;

use arbiter::{Arb, Error, Outcome, SetId, Swap, Version, in_thread};
use common::{LONG, first, or_skip, random, version, win};
use etcd_client::{Client, Permission};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use std::{
    fs,
    path::{Path, PathBuf},
};
use vmm_lite_lab::etcd::{Clients, Cluster};

/// A certificate authority, and files with what it signed.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    ca: PathBuf,
}

impl Authority {
    fn new(dir: &Path, name: &str) -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let ca = dir.join(format!("{name}-ca.pem"));
        fs::write(&ca, issuer.pem()).unwrap();
        Self { issuer, ca }
    }

    /// Files of a certificate for 127.0.0.1, and of its key.
    fn sign(&self, dir: &Path, name: &str) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".into()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let files = [dir.join(format!("{name}.pem")), dir.join(format!("{name}.key"))];
        fs::write(&files[0], certificate.pem()).unwrap();
        fs::write(&files[1], key.serialize_pem()).unwrap();
        let [certificate, key] = files;
        (certificate, key)
    }
}

fn refused(arb: &str) -> String {
    let mut client = in_thread(arb.parse::<Arb>().unwrap()).unwrap();
    match client.read(SetId(random()), LONG) {
        Err(Error::Refused(why)) => why,
        other => panic!("{arb}: {other:?}"),
    }
}

#[test]
fn members_and_clients_prove_who_they_are_by_tls() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let (ours, theirs) = (Authority::new(dir, "ours"), Authority::new(dir, "theirs"));
    let (certificate, key) = ours.sign(dir, "server");
    let authority = Some(ours.ca.clone());
    let clients = Clients::Tls { certificate, key, authority };
    let Some(etcd) = or_skip(Cluster::with(1, clients)) else { return };
    let (endpoints, ca) = (etcd.endpoints(), ours.ca.display());
    let (certificate, key) = ours.sign(dir, "client");
    let identity = format!("cert={}&key={}", certificate.display(), key.display());
    let arb = format!("etcds://{endpoints}?ca={ca}&{identity}");
    let mut client = in_thread(arb.parse().unwrap()).unwrap();
    let first = first();
    let made = win(&mut client, Version::NONE, first.clone());
    assert_eq!(version(&mut client, first.set), made);

    let other = theirs.ca.display();
    let why = refused(&format!("etcds://{endpoints}?ca={other}&{identity}"));
    assert!(why.contains("UnknownIssuer"), "{why}");
    let why = refused(&format!("etcds://{endpoints}?ca=/no/such/file"));
    assert!(why.contains("cannot read /no/such/file"), "{why}");
    // Without a certificate, or without TLS: etcd closes the connection.
    for arb in [format!("etcds://{endpoints}?ca={ca}"), format!("etcd://{endpoints}")] {
        let mut client = in_thread(arb.parse().unwrap()).unwrap();
        let read = client.read(first.set, std::time::Duration::from_millis(500));
        assert!(matches!(read, Err(Error::Unreachable(_) | Error::Refused(_))), "{arb}: {read:?}");
    }
}

#[test]
fn users_need_their_password_and_the_permission() {
    let Some(etcd) = common::etcd(1) else { return };
    let endpoints = etcd.endpoints();
    let dir = tempfile::tempdir().unwrap();
    let user = |name: &str, password: &str| {
        let file = dir.path().join(format!("{name}-{password}"));
        fs::write(&file, format!("{password}\nA comment.\n")).unwrap();
        format!("etcd://{endpoints}?user={name}&password={}", file.display())
    };
    // Nobody can log in where there are no users.
    let why = refused(&user("vmm-lite", "secret"));
    assert!(why.contains("leave out user and password"), "{why}");

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut root = Client::connect([&endpoints], None).await.unwrap();
        root.user_add("root", "r", None).await.unwrap();
        root.user_grant_role("root", "root").await.unwrap();
        // What docs/arbiter.md names.
        root.role_add("vmm-lite").await.unwrap();
        let all = Permission::read_write("vmm-lite/").with_prefix();
        root.role_grant_permission("vmm-lite", all).await.unwrap();
        root.user_add("vmm-lite", "secret", None).await.unwrap();
        root.user_grant_role("vmm-lite", "vmm-lite").await.unwrap();
        root.user_add("other", "secret", None).await.unwrap();
        root.auth_enable().await.unwrap();
    });

    let mut client = in_thread(user("vmm-lite", "secret").parse().unwrap()).unwrap();
    let first = first();
    let made = win(&mut client, Version::NONE, first.clone());
    let next = win(&mut client, made, first.next(first.active, []));
    client.announce(first.set, first.active, LONG).unwrap();
    assert_eq!(client.present(first.set, &[first.active], LONG), Ok(vec![first.active]));
    assert_eq!(client.forget(first.set, next, LONG), Ok(Outcome::Won(next)));

    let why = refused(&user("vmm-lite", "wrong"));
    assert!(why.contains("invalid user ID or password"), "{why}");
    for arb in [user("other", "secret"), format!("etcd://{endpoints}")] {
        let why = refused(&arb);
        assert!(why.contains("needs a role with read and write permission"), "{arb}: {why}");
        let mut client = in_thread(arb.parse().unwrap()).unwrap();
        let swap = Swap::new(Version::NONE, common::first()).unwrap();
        let error = client.swap(&swap, LONG).unwrap_err();
        assert!(matches!(error, Error::Refused(_)), "{arb}: {error}");
    }
}
