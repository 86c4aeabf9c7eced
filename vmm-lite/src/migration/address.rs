//! Where VMs are sent: `tcp://HOST:PORT`.
//!
//! Names are looked up by the verbs. The process of a VM, which opens no files and asks nobody, is told the addresses.

use std::{
    fmt,
    net::{SocketAddr, ToSocketAddrs},
    str::FromStr,
};

/// Scheme of plain TCP.
const TCP: &str = "tcp://";

/// An address on the network.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Address {
    host_port: String,
    /// What its name stands for, once that was looked up.
    found: Vec<SocketAddr>,
}

/// What is wrong with an address.
#[derive(thiserror::Error, Debug)]
pub enum AddressError {
    /// Not of the form.
    #[error("{0:?} is no address to move to: write tcp://HOST:PORT, such as tcp://10.9.0.2:7000")]
    Form(String),
    /// A name where only an address will do.
    #[error("{0} is a name: tell the VM its addresses too (`vmm-lite migrate` does)")]
    Name(String),
    /// A name that cannot be looked up.
    #[error("cannot find {host}")]
    LookUp {
        /// Host and port.
        host: String,
        /// What the resolver says.
        source: std::io::Error,
    },
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let wrong = || AddressError::Form(text.to_owned());
        let host_port = text.strip_prefix(TCP).ok_or_else(wrong)?;
        let (host, port) = host_port.rsplit_once(':').ok_or_else(wrong)?;
        if host.is_empty() || port.parse::<u16>().is_err() {
            return Err(wrong());
        }
        Ok(Self { host_port: host_port.to_owned(), found: Vec::new() })
    }
}

impl Address {
    /// Looks up the socket addresses it stands for.
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

    /// The same, with what somebody else has looked up.
    #[must_use]
    pub fn found_at(self, found: Vec<SocketAddr>) -> Self {
        Self { found, ..self }
    }

    /// The socket addresses it stands for, without looking anything up.
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
    fn only_what_can_be_an_address_is_one() {
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
    fn names_are_not_looked_up_by_those_who_may_not() {
        let there: SocketAddr = "[::1]:7000".parse().unwrap();
        let address = |text: &str| text.parse::<Address>().unwrap();
        assert_eq!(address("tcp://[::1]:7000").known().unwrap(), [there]);
        assert!(matches!(address("tcp://localhost:7000").known(), Err(AddressError::Name(_))));
        let told = address("tcp://localhost:7000").found_at(vec![there]);
        assert_eq!(told.known().unwrap(), [there]);
        assert!(!address("tcp://localhost:7000").look_up().unwrap().is_empty());
    }
}
