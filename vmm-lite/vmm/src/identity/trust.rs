//! The hosts that this one trusts, and their roles: a text file with a line for each.
//!
//! ```text
//! ed25519:3q2-7w… hosta send,receive
//! ed25519:9Xh_Zq… hostb receive at=10.9.0.2:7000,hostb.example
//! ```

use super::{Error, Location, PublicKey};
use std::fmt;

/// Limit for the number of trusted hosts.
pub const HOSTS_MAX: usize = 400;
const NAME_MAX: usize = 64;
/// Limit for a host's addresses.
pub const LOCATIONS_MAX: usize = 8;
/// Prefix of a host's addresses in the file.
const AT: &str = "at=";

/// A role of a host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Send VMs to this host.
    Send,
    /// Receive VMs from this host.
    Receive,
}

/// A trusted host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trusted {
    /// Its key.
    pub key: PublicKey,
    /// Its name for the operator; nothing depends on it.
    pub name: String,
    /// Whether it may send VMs here.
    pub send: bool,
    /// Whether it may receive VMs from here.
    pub receive: bool,
    /// Its expected addresses as a receiver; empty: any that no other host is bound to.
    pub at: Vec<Location>,
}

impl Trusted {
    /// Whether it has this role.
    #[must_use]
    pub fn may(&self, role: Role) -> bool {
        match role {
            Role::Send => self.send,
            Role::Receive => self.receive,
        }
    }
}

impl fmt::Display for Trusted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let may = match (self.send, self.receive) {
            (true, true) => "send,receive",
            (true, false) => "send",
            (false, true) => "receive",
            (false, false) => "nothing",
        };
        write!(f, "{} {} {may}", self.key, self.name)?;
        for (n, at) in self.at.iter().enumerate() {
            write!(f, "{}{at}", if n == 0 { " at=" } else { "," })?;
        }
        Ok(())
    }
}

/// The trusted hosts.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TrustStore {
    hosts: Vec<Trusted>,
}

/// Checks that a host can have this name.
///
/// # Errors
/// [`Error::Name`].
pub fn check_name(name: &str) -> Result<(), Error> {
    let fine = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if name.is_empty()
        || name.len() > NAME_MAX
        || name.starts_with(['.', '-'])
        || !name.chars().all(fine)
    {
        return Err(Error::Name(name.chars().take(100).collect()));
    }
    Ok(())
}

impl TrustStore {
    /// Parses the file's text. Empty lines and those that begin with `#` are skipped.
    ///
    /// # Errors
    /// The invalid line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut store = Self::default();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if !line.is_empty() && !line.starts_with('#') {
                let host = trusted(line).map_err(|e| format!("line {}: {e}", number + 1))?;
                store.add(host).map_err(|e| format!("line {}: {e}", number + 1))?;
            }
        }
        Ok(store)
    }

    /// All hosts, in order.
    #[must_use]
    pub fn hosts(&self) -> &[Trusted] {
        &self.hosts
    }

    /// The host with this key.
    #[must_use]
    pub fn get(&self, key: &PublicKey) -> Option<&Trusted> {
        self.hosts.iter().find(|host| host.key == *key)
    }

    /// Adds a host; if its key is known, that gets the new name and rights.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::Name`], [`Error::Taken`], [`Error::Locations`].
    pub fn add(&mut self, new: Trusted) -> Result<(), Error> {
        check_name(&new.name)?;
        if new.at.len() > LOCATIONS_MAX {
            return Err(Error::Locations(LOCATIONS_MAX));
        }
        if self.hosts.iter().any(|host| host.name == new.name && host.key != new.key) {
            return Err(Error::Taken { name: new.name });
        }
        if let Some(old) = self.hosts.iter_mut().find(|host| host.key == new.key) {
            *old = new;
        } else if self.hosts.len() == HOSTS_MAX {
            return Err(Error::Full(HOSTS_MAX));
        } else {
            self.hosts.push(new);
        }
        Ok(())
    }

    /// Binds a known host to an address, in addition to those that it is bound to.
    ///
    /// # Errors
    /// [`Error::NotTrusted`], [`Error::Locations`].
    pub fn bind(&mut self, key: &PublicKey, at: Location) -> Result<&Trusted, Error> {
        let Some(host) = self.hosts.iter_mut().find(|host| host.key == *key) else {
            return Err(Error::NotTrusted(key.to_string()));
        };
        if !host.at.contains(&at) {
            if host.at.len() == LOCATIONS_MAX {
                return Err(Error::Locations(LOCATIONS_MAX));
            }
            host.at.push(at);
        }
        Ok(host)
    }

    /// Removes a host, by name or key.
    ///
    /// # Errors
    /// [`Error::NotTrusted`].
    pub fn remove(&mut self, who: &str) -> Result<Trusted, Error> {
        let is = |host: &Trusted| host.name == who || host.key.to_string() == who;
        match self.hosts.iter().position(is) {
            Some(at) => Ok(self.hosts.remove(at)),
            None => Err(Error::NotTrusted(who.chars().take(100).collect())),
        }
    }

    /// The hosts with this role.
    pub fn that_may(&self, role: Role) -> impl Iterator<Item = &Trusted> {
        self.hosts.iter().filter(move |host| host.may(role))
    }
}

impl fmt::Display for TrustStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.hosts.iter().try_for_each(|host| writeln!(f, "{host}"))
    }
}

fn trusted(line: &str) -> Result<Trusted, String> {
    let mut words = line.split_whitespace();
    let (Some(key), Some(name), Some(may), at, None) =
        (words.next(), words.next(), words.next(), words.next(), words.next())
    else {
        return Err("write KEY NAME send,receive, and maybe at=HOST:PORT,…".into());
    };
    let key = key.parse().map_err(|e: Error| e.to_string())?;
    let at = match at.map(|at| at.strip_prefix(AT)) {
        None => Vec::new(),
        Some(Some(at)) => {
            let at = at.split(',').map(str::parse).collect::<Result<_, _>>();
            at.map_err(|e: Error| e.to_string())?
        }
        Some(None) => return Err("after what it may there can only be at=HOST:PORT,…".into()),
    };
    let mut host = Trusted { key, name: name.to_owned(), send: false, receive: false, at };
    for right in may.split(',') {
        match right {
            "send" => host.send = true,
            "receive" => host.receive = true,
            _ => {
                return Err(format!("{right:?} is no right: write send, receive, or send,receive"));
            }
        }
    }
    Ok(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(n: u8, name: &str, send: bool, receive: bool) -> Trusted {
        Trusted { key: PublicKey([n; 32]), name: name.into(), send, receive, at: Vec::new() }
    }

    #[test]
    fn a_list_survives_writing_and_parsing() {
        let mut store = TrustStore::default();
        store.add(host(1, "a", true, true)).unwrap();
        store.add(host(2, "b.example", true, false)).unwrap();
        store.add(host(3, "c-3", false, true)).unwrap();
        for at in ["10.9.0.2:7000", "hostc", "[fe80::1]:7000", "hostc"] {
            store.bind(&PublicKey([3; 32]), at.parse().unwrap()).unwrap();
        }
        assert_eq!(store.get(&PublicKey([3; 32])).unwrap().at.len(), 3, "each is there once");
        store.bind(&PublicKey([4; 32]), "hostd".parse().unwrap()).unwrap_err();
        let text = format!("# hosts\n\n  {store}");
        assert_eq!(TrustStore::parse(&text).unwrap(), store);
        let names = |role| store.that_may(role).map(|h| h.name.as_str()).collect::<Vec<_>>();
        assert_eq!(names(Role::Send), ["a", "b.example"]);
        assert_eq!(names(Role::Receive), ["a", "c-3"]);
    }

    #[test]
    fn an_invalid_line_is_an_error_and_adds_no_trust() {
        let key = PublicKey([1; 32]);
        for wrong in [
            "hello".to_owned(),
            format!("{key} a"),
            format!("{key} a everything"),
            format!("{key} a send,"),
            format!("{key} a send receive"),
            format!("{key} a send at="),
            format!("{key} a send at=a,"),
            format!("{key} a send at=a b"),
            format!("{key} a send at={}", ["a"; LOCATIONS_MAX + 1].join(",")),
            format!("{key} -a send"),
            format!("{key} a send\n{} a send", PublicKey([2; 32])),
        ] {
            let said = TrustStore::parse(&wrong).unwrap_err();
            assert!(said.starts_with("line "), "{said}");
        }
    }

    #[test]
    fn keys_and_names_are_unique() {
        let mut store = TrustStore::default();
        store.add(host(1, "a", true, true)).unwrap();
        store.add(host(1, "b", true, false)).unwrap();
        assert_eq!(store.hosts(), [host(1, "b", true, false)]);
        store.add(host(2, "b", true, true)).unwrap_err();
        store.remove("a").unwrap_err();
        store.remove("b").unwrap();
        store.add(host(2, "b", true, true)).unwrap();
        store.remove(&PublicKey([2; 32]).to_string()).unwrap();
        assert!(store.hosts().is_empty());
    }

    #[test]
    fn the_number_of_hosts_is_limited() {
        let mut store = TrustStore::default();
        for n in 0..HOSTS_MAX {
            let key =
                PublicKey(std::array::from_fn(|i| if i == 0 { n as u8 } else { (n >> 8) as u8 }));
            store.add(Trusted { key, ..host(0, &format!("h{n}"), true, true) }).unwrap();
        }
        assert!(matches!(store.add(host(200, "one-more", true, true)), Err(Error::Full(_))));
    }
}
