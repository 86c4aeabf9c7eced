//! Which hosts may answer at a move's destination address.
//!
//! Trust states which hosts may receive VMs, not which of them is meant: without more, any trusted
//! host that gets the traffic of an address would be given the VM.

use super::{Error, Location, PublicKey, Role, TrustStore, Trusted};

/// The hosts that may answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Expected {
    /// Their keys, at least one.
    pub keys: Vec<PublicKey>,
    /// Nothing determines which of them it is: the one that answers must be bound to the address.
    pub first_use: bool,
}

/// The hosts that may answer at `host`:`port`. In this order: the key that was `named`; the hosts
/// that are bound to the address; the only host that may receive VMs and is bound to no address, or
/// with `first_use` any of several such hosts.
///
/// # Errors
/// [`Error::NotReceiver`], [`Error::NoneThere`], [`Error::AnyThere`].
pub fn expected(
    trusted: &TrustStore,
    (host, port): (&str, u16),
    named: Option<PublicKey>,
    first_use: bool,
) -> Result<Expected, Error> {
    if let Some(key) = named {
        return match trusted.get(&key) {
            Some(known) if known.may(Role::Receive) => {
                Ok(Expected { keys: vec![key], first_use: false })
            }
            _ => Err(Error::NotReceiver(key)),
        };
    }
    let receivers = || trusted.that_may(Role::Receive);
    let keys = |hosts: Vec<&Trusted>| hosts.into_iter().map(|host| host.key).collect::<Vec<_>>();
    let bound = keys(receivers().filter(|r| r.at.iter().any(|at| at.is(host, port))).collect());
    if !bound.is_empty() {
        return Ok(Expected { keys: bound, first_use: false });
    }
    let free: Vec<&Trusted> = receivers().filter(|receiver| receiver.at.is_empty()).collect();
    let at = || Location::of(host, port).to_string();
    match free.len() {
        0 if receivers().next().is_none() => Err(Error::NoReceiver),
        0 => Err(Error::NoneThere(at())),
        2.. if !first_use => {
            let names: Vec<&str> = free.iter().map(|host| host.name.as_str()).collect();
            Err(Error::AnyThere { at: at(), names: names.join(", ") })
        }
        n => Ok(Expected { keys: keys(free), first_use: n > 1 }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> PublicKey {
        PublicKey([n; 32])
    }

    fn store(hosts: &[(u8, bool, &[&str])]) -> TrustStore {
        let mut store = TrustStore::default();
        for &(n, receive, at) in hosts {
            let at = at.iter().map(|at| at.parse().unwrap()).collect();
            let name = format!("h{n}");
            store.add(Trusted { key: key(n), name, send: true, receive, at }).unwrap();
        }
        store
    }

    fn at_b(store: &TrustStore) -> Result<Vec<PublicKey>, Error> {
        expected(store, ("hostb", 7000), None, false).map(|expected| expected.keys)
    }

    /// Every combination of two hosts that may receive or not, and are bound here, elsewhere, or
    /// not at all.
    #[test]
    fn the_expected_host_follows_from_trust_and_bindings_alone() {
        let places: [&[&str]; 4] = [&[], &["hostb"], &["hostb:7000", "x"], &["hostc", "hostb:1"]];
        for (one, two) in places.iter().flat_map(|one| places.iter().map(move |two| (one, two))) {
            for (one_may, two_may) in [(true, true), (true, false), (false, true), (false, false)] {
                let store = store(&[(1, one_may, one), (2, two_may, two)]);
                let here = |at: &[&str]| at.first().is_some_and(|a| a.starts_with("hostb"));
                let bound: Vec<PublicKey> = [(1, one_may, one), (2, two_may, two)]
                    .into_iter()
                    .filter(|(_, may, at)| *may && here(at))
                    .map(|(n, ..)| key(n))
                    .collect();
                let free: Vec<PublicKey> = [(1, one_may, one), (2, two_may, two)]
                    .into_iter()
                    .filter(|(_, may, at)| *may && at.is_empty())
                    .map(|(n, ..)| key(n))
                    .collect();
                match at_b(&store) {
                    Ok(keys) if !bound.is_empty() => assert_eq!(keys, bound),
                    Ok(keys) => assert!(keys == free && keys.len() == 1, "{store}"),
                    Err(Error::AnyThere { .. }) => assert!(bound.is_empty() && free.len() == 2),
                    Err(Error::NoReceiver) => assert!(!one_may && !two_may),
                    Err(Error::NoneThere(_)) => assert!(bound.is_empty() && free.is_empty()),
                    Err(e) => panic!("{e}"),
                }
            }
        }
    }

    #[test]
    fn a_named_key_is_the_only_one_and_must_be_trusted() {
        let store = store(&[(1, true, &["hostb"]), (2, true, &[]), (3, false, &[])]);
        let named = |n| expected(&store, ("hostb", 7000), Some(key(n)), true);
        assert_eq!(named(2).unwrap(), Expected { keys: vec![key(2)], first_use: false });
        for n in [3, 4] {
            let said = named(n).unwrap_err().to_string();
            assert!(said.contains("identity trust"), "{said}");
        }
    }

    #[test]
    fn first_use_of_an_address_is_refused_unless_requested() {
        let free = store(&[(1, true, &[]), (2, true, &[])]);
        let said = at_b(&free).unwrap_err().to_string();
        assert!(said.contains("--at hostb:7000") && said.contains("h1, h2"), "{said}");
        let any = expected(&free, ("hostb", 7000), None, true).unwrap();
        assert_eq!(any, Expected { keys: vec![key(1), key(2)], first_use: true });
        // A bound address has no first use, nor has one without a choice.
        let one = store(&[(1, true, &["hostb"]), (2, true, &[]), (3, true, &[])]);
        let bound = expected(&one, ("hostb", 7000), None, true).unwrap();
        assert_eq!(bound, Expected { keys: vec![key(1)], first_use: false });
        let elsewhere = store(&[(1, true, &["hostc"])]);
        assert!(matches!(
            expected(&elsewhere, ("hostb", 7000), None, true),
            Err(Error::NoneThere(_))
        ));
    }
}
