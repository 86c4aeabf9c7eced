//! Destinations of a move: `tcp://HOST:PORT`, and with `#ed25519:…` only the host with that key.
//!
//! The verbs look up names. The process of a VM, which opens no files and queries no name server,
//! gets the addresses.

use super::connector::Dialer;
use crate::identity::PublicKey;
use std::{
    fmt,
    net::{SocketAddr, ToSocketAddrs},
    str::FromStr,
};

/// Scheme of plain TCP.
const TCP: &str = "tcp://";

/// A destination's address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Address {
    host_port: String,
    /// The key that the host there must have, if one was named.
    key: Option<PublicKey>,
    /// The socket addresses of its name, once that was looked up.
    found: Vec<SocketAddr>,
    /// The connector, where this process cannot connect.
    dialer: Option<Dialer>,
}

/// Why an address is invalid.
#[derive(thiserror::Error, Debug)]
pub enum AddressError {
    /// It does not have the form.
    #[error("{0:?} is no address to move to: write tcp://HOST:PORT, such as tcp://10.9.0.2:7000")]
    Form(String),
    /// The text after `#` is not a key.
    #[error("the address names an invalid key")]
    Key(#[source] Box<crate::identity::Error>),
    /// A name where an address is required.
    #[error("{0} is a name: tell the VM its addresses too (`vmm-lite migrate` does)")]
    Name(String),
    /// A name that cannot be looked up.
    #[error("cannot find {host}")]
    LookUp {
        /// Host and port.
        host: String,
        /// The resolver's error.
        source: std::io::Error,
    },
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let wrong = || AddressError::Form(text.to_owned());
        let rest = text.strip_prefix(TCP).ok_or_else(wrong)?;
        let (host_port, key) = match rest.split_once('#') {
            None => (rest, None),
            Some((host_port, key)) => {
                let key = key.parse().map_err(|e| AddressError::Key(Box::new(e)))?;
                (host_port, Some(key))
            }
        };
        let (host, port) = host_port.rsplit_once(':').ok_or_else(wrong)?;
        if host.is_empty() || port.parse::<u16>().is_err() {
            return Err(wrong());
        }
        Ok(Self { host_port: host_port.to_owned(), key, found: Vec::new(), dialer: None })
    }
}

impl Address {
    /// Host and port, as written.
    #[must_use]
    pub fn host_port(&self) -> (&str, u16) {
        let (host, port) = self.host_port.rsplit_once(':').unwrap_or((&self.host_port, ""));
        (host, port.parse().unwrap_or_default())
    }

    /// The key that the host there must have, if one was named.
    #[must_use]
    pub fn key(&self) -> Option<PublicKey> {
        self.key
    }

    /// Looks up its socket addresses.
    ///
    /// # Errors
    /// [`AddressError::LookUp`].
    pub fn look_up(&self) -> Result<Vec<SocketAddr>, AddressError> {
        let found = self.host_port.to_socket_addrs();
        let found: Vec<_> = found
            .map_err(|source| AddressError::LookUp { host: self.host_port.clone(), source })?
            .collect();
        if found.is_empty() { Err(AddressError::Form(self.to_string())) } else { Ok(found) }
    }

    /// The same, with addresses that were looked up elsewhere.
    #[must_use]
    pub fn found_at(self, found: Vec<SocketAddr>) -> Self {
        Self { found, ..self }
    }

    /// The same, where `dialer` connects, which has the addresses.
    #[must_use]
    pub fn through(self, dialer: Option<Dialer>) -> Self {
        Self { dialer, ..self }
    }

    /// The connector, where this process cannot connect.
    #[must_use]
    pub fn dialer(&self) -> Option<&Dialer> {
        self.dialer.as_ref()
    }

    /// Its socket addresses, without looking anything up.
    ///
    /// # Errors
    /// [`AddressError::Name`].
    pub fn known(&self) -> Result<Vec<SocketAddr>, AddressError> {
        if !self.found.is_empty() {
            return Ok(self.found.clone());
        }
        let address = self.host_port.parse();
        Ok(vec![address.map_err(|_| AddressError::Name(self.host_port.clone()))?])
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{TCP}{}", self.host_port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_valid_addresses_are_accepted() {
        for right in ["tcp://10.9.0.2:7000", "tcp://localhost:1", "tcp://[::1]:7000"] {
            assert_eq!(right.parse::<Address>().unwrap().to_string(), right);
        }
        for wrong in
            ["", "10.9.0.2:7000", "tcp://", "tcp://:7", "tcp://a", "tcp://a:70000", "udp://a:7"]
        {
            let said = wrong.parse::<Address>().unwrap_err().to_string();
            assert!(said.contains("tcp://HOST:PORT"), "{said}");
        }
    }

    #[test]
    fn an_address_may_name_a_key_and_is_written_without_it() {
        let key = PublicKey([7; 32]);
        let address: Address = format!("tcp://[::1]:7000#{key}").parse().unwrap();
        assert_eq!((address.key(), address.host_port()), (Some(key), ("[::1]", 7000)));
        assert_eq!(address.to_string(), "tcp://[::1]:7000");
        assert_eq!("tcp://a:7000".parse::<Address>().unwrap().key(), None);
        for wrong in ["#", "#ed25519:", "#hostb", &format!("#{key}#{key}"), &format!("#{key}/")] {
            let said = format!("tcp://a:7000{wrong}").parse::<Address>().unwrap_err();
            assert!(said.to_string().contains("names an invalid key"), "{wrong}: {said}");
        }
    }

    #[test]
    fn names_without_addresses_are_not_looked_up() {
        let there: SocketAddr = "[::1]:7000".parse().unwrap();
        let address = |text: &str| text.parse::<Address>().unwrap();
        assert_eq!(address("tcp://[::1]:7000").known().unwrap(), [there]);
        assert!(matches!(address("tcp://localhost:7000").known(), Err(AddressError::Name(_))));
        let told = address("tcp://localhost:7000").found_at(vec![there]);
        assert_eq!(told.known().unwrap(), [there]);
        assert!(!address("tcp://localhost:7000").look_up().unwrap().is_empty());
    }
}
