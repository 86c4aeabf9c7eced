//! Where VMs are sent: `tcp://HOST:PORT`.

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
}

/// What is wrong with an address.
#[derive(thiserror::Error, Debug)]
pub enum AddressError {
    /// Not of the form.
    #[error("{0:?} is no address to move to: write tcp://HOST:PORT, such as tcp://10.9.0.2:7000")]
    Form(String),
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
        Ok(Self { host_port: host_port.to_owned() })
    }
}

impl Address {
    /// The socket addresses it stands for.
    ///
    /// # Errors
    /// [`AddressError::LookUp`].
    pub fn resolve(&self) -> Result<Vec<SocketAddr>, AddressError> {
        let found = self.host_port.to_socket_addrs();
        let found: Vec<_> = found
            .map_err(|source| AddressError::LookUp { host: self.host_port.clone(), source })?
            .collect();
        if found.is_empty() { Err(AddressError::Form(self.to_string())) } else { Ok(found) }
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
}
