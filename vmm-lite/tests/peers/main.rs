//! `vmm-lite receive` and unauthenticated peers: whatever they do, the next trusted host can move
//! its VM in.

mod between;
mod crowds;
mod fixture;

use fixture::{AT, fixture, greet, other_host, trust};
use migrate::wire::{Message, Outcome};
use std::{
    fs,
    path::Path,
    time::{Duration, SystemTime},
};
use vmm::vm::CallOff;
use vmm::{
    identity::{HostIdentity, IdentityDir},
    migration::connection::{Connection, Incoming, Transport},
};
use vmm_lite_lab::vmm::TIMEOUT;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Changes the first host's certificate to one for another time.
fn at_another_time(dir: &Path, validity: std::ops::Range<SystemTime>) {
    let other = HostIdentity::generate_for(validity).unwrap();
    let (key, certificate) = other.pem();
    fs::write(dir.join("key.pem"), key).unwrap();
    fs::write(dir.join("certificate.pem"), certificate).unwrap();
}

#[test]
fn hosts_that_are_untrusted_or_have_invalid_certificates_are_told_why() {
    let Some(mut fixture) = fixture("untrusted hosts with TLS") else { return };
    let destination = fixture.vmms[1].receive(7000, &[]).unwrap();
    let from = &fixture.site.hosts[0];
    let hello = || Message::Hello([1; 16]);
    let here = IdentityDir::find(Some(fixture.vmms[0].identity())).load().unwrap().public();
    let said =
        greet(from, other_host(&fixture.vmms[1], HostIdentity::generate(10).unwrap()), hello());
    assert!(said.unwrap_err().contains("does not trust this one's key"));
    destination.wait_for_line("is not trusted here", TIMEOUT).unwrap();
    // Trusted, but with certificates for other times.
    let now = SystemTime::now();
    for (name, validity, why) in [
        ("old", now - DAY * 9..now - DAY, "has expired"),
        ("young", now + DAY..now + DAY * 9, "is not valid yet"),
    ] {
        let identity = HostIdentity::generate_for(validity).unwrap();
        trust(&fixture.vmms[1], &identity, name);
        let said = greet(from, other_host(&fixture.vmms[1], identity), hello());
        assert!(said.unwrap_err().contains("has expired or is not valid yet"));
        destination.wait_for_line(&format!("certificate of {name}"), TIMEOUT).unwrap();
        destination.wait_for_line(why, TIMEOUT).unwrap();
    }
    assert!(!destination.output().contains(&here.to_string()), "the trusted host is not mentioned");
    fixture.moves(&destination);
}

#[test]
fn a_revoked_host_is_refused_from_then_on() {
    let Some(mut fixture) = fixture("revoked trust") else { return };
    let destination = fixture.vmms[1].receive(7000, &[]).unwrap();
    let dir = IdentityDir::find(Some(fixture.vmms[1].identity()));
    let gone = dir.change_trusted(|store| store.remove("host0")).unwrap();
    let said = fixture.vmms[0].migrate("d", &fixture.vmms[1].url(7000)).unwrap_err().to_string();
    assert!(said.contains("does not trust this one's key"), "{said}");
    // An invalid trust file admits no host.
    fs::write(dir.path().join("trusted"), "everybody\n").unwrap();
    fixture.vmms[0].migrate("d", &fixture.vmms[1].url(7000)).unwrap_err();
    fs::write(dir.path().join("trusted"), format!("{gone}\n")).unwrap();
    fixture.moves(&destination);
}

#[test]
fn a_host_without_an_identity_is_told_how_to_get_one() {
    let Some(mut fixture) = fixture("no identity") else { return };
    fs::rename(fixture.vmms[0].identity(), fixture.vmms[0].identity().with_extension("away"))
        .unwrap();
    let said = fixture.vmms[0].migrate("d", &fixture.vmms[1].url(7000)).unwrap_err().to_string();
    for part in ["identity init", "identity trust", "--plaintext"] {
        assert!(said.contains(part), "{said}");
    }
    fs::rename(fixture.vmms[0].identity().with_extension("away"), fixture.vmms[0].identity())
        .unwrap();
    // A host whose own certificate has expired does not even try.
    let kept = [
        fs::read(fixture.vmms[0].identity().join("key.pem")),
        fs::read(fixture.vmms[0].identity().join("certificate.pem")),
    ];
    let now = SystemTime::now();
    at_another_time(&fixture.vmms[0].identity(), now - DAY * 9..now - DAY);
    let said = fixture.vmms[0].migrate("d", &fixture.vmms[1].url(7000)).unwrap_err().to_string();
    assert!(
        said.contains("this host's certificate has expired") && said.contains("identity renew"),
        "{said}"
    );
    for (file, content) in ["key.pem", "certificate.pem"].into_iter().zip(kept) {
        fs::write(fixture.vmms[0].identity().join(file), content.unwrap()).unwrap();
    }
    let destination = fixture.vmms[1].receive(7000, &[]).unwrap();
    fixture.moves(&destination);
}

#[test]
fn plaintext_must_be_set_on_both_sides() {
    let Some(fixture) = fixture("plaintext") else { return };
    let url = fixture.vmms[1].url(7000);
    {
        let _tls = fixture.vmms[1].receive(7000, &[]).unwrap();
        let said = fixture.vmms[0]
            .json(&["migrate", "d", &url, "--plaintext", "--json"])
            .unwrap_err()
            .to_string();
        assert!(
            said.contains("warning: the connection is neither encrypted nor authenticated"),
            "{said}"
        );
        assert!(said.contains("this destination takes TLS only"), "{said}");
    }
    let plain = fixture.vmms[1].receive(7000, &["--plaintext"]).unwrap();
    assert!(plain.output().contains("neither encrypted nor authenticated"), "{}", plain.output());
    let said = fixture.vmms[0].migrate("d", &url).unwrap_err().to_string();
    assert!(said.contains("the other side speaks plaintext"), "{said}");
    plain.wait_for_line("the peer speaks TLS", TIMEOUT).unwrap();
    // An unauthenticated peer may send here, but not replay another's messages.
    let hello = || Message::Hello([9; 16]);
    let from = &fixture.site.hosts[0];
    assert!(matches!(greet(from, Transport::Plaintext, hello()), Ok(Message::Welcome(..))));
    plain.wait_for_line("did not arrive", TIMEOUT).unwrap();
    match greet(from, Transport::Plaintext, hello()) {
        Ok(Message::Abort(why)) => assert!(why.contains("begun before"), "{why}"),
        other => panic!("{other:?}"),
    }
    fixture.vmms[0].json(&["migrate", "d", &url, "--plaintext", "--json"]).unwrap();
    plain.wait_for_line("passes=", TIMEOUT).unwrap();
}

#[test]
fn only_the_host_that_makes_a_move_may_query_it() {
    let Some(mut fixture) = fixture("questions") else { return };
    let destination = fixture.vmms[1].receive(7000, &[]).unwrap();
    // Both are trusted; one begins a move, the other queries it.
    let [anne, bob] = ["anne", "bob"].map(|name| {
        let identity = HostIdentity::generate(10).unwrap();
        trust(&fixture.vmms[1], &identity, name);
        other_host(&fixture.vmms[1], identity)
    });
    let id = [5; 16];
    let (mut annes, receiver) = {
        let anne = anne.clone();
        fixture.site.hosts[0]
            .ns
            .enter(move || {
                let to = format!("tcp://{AT}").parse().unwrap();
                let mut connection =
                    Connection::open(&to, &anne, None, TIMEOUT, &CallOff::NEVER).unwrap();
                connection.send(&Message::Hello(id)).unwrap();
                match connection.receive(0) {
                    Ok(Incoming::Message(Message::Welcome(_, receiver))) => (connection, receiver),
                    other => panic!("{other:?}"),
                }
            })
            .unwrap()
    };
    let from = &fixture.site.hosts[0];
    let ask = |who: &Transport| greet(from, who.clone(), Message::Query(id, receiver)).unwrap();
    assert_eq!(ask(&bob), Message::Outcome(id, Outcome::Unknown));
    assert!(!annes.wait(Duration::from_millis(200)).unwrap(), "her move is not disturbed");
    assert_eq!(ask(&anne), Message::Outcome(id, Outcome::Never));
    assert!(annes.wait(TIMEOUT).unwrap(), "her question has ended it");
    // A repeated hello begins nothing.
    match greet(from, anne.clone(), Message::Hello(id)) {
        Ok(Message::Abort(why)) => assert!(why.contains("begun before"), "{why}"),
        other => panic!("{other:?}"),
    }
    fixture.moves(&destination);
}
