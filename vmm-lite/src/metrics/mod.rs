//! Metrics of a VM for Prometheus: as text, and served over HTTP.

mod http;
mod replication;
pub mod text;

pub use http::Endpoint;

use std::{fmt, net::SocketAddr, path::PathBuf, str::FromStr};

/// Where metrics are served: `ADDRESS:PORT`, or `unix:PATH`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum At {
    /// Over TCP.
    Tcp(SocketAddr),
    /// At a Unix socket.
    Unix(PathBuf),
}

/// Why metrics cannot be served.
#[derive(thiserror::Error, Debug)]
pub enum Error {
    /// Not a valid place.
    #[error(
        "{0:?} is not a place to serve metrics: write ADDRESS:PORT, such as 127.0.0.1:9100, or \
         unix:PATH"
    )]
    Form(String),
    /// One place for several VMs.
    #[error(
        "{0} is one place, and each of several VMs needs its own: write unix:PATH with %d in it, \
         for the VM's number"
    )]
    Shared(At),
    /// A place that cannot be listened on.
    #[error("cannot serve metrics at {at}")]
    Listen {
        /// Where.
        at: At,
        /// The host's error.
        source: std::io::Error,
    },
}

impl At {
    /// The place for the VM with this number, of several: a path with the number in place of `%d`.
    ///
    /// # Errors
    /// [`Error::Shared`].
    pub fn numbered(&self, number: u32) -> Result<Self, Error> {
        match self {
            Self::Unix(path) => match path.to_str() {
                Some(path) if path.contains("%d") => {
                    Ok(Self::Unix(path.replace("%d", &number.to_string()).into()))
                }
                _ => Err(Error::Shared(self.clone())),
            },
            Self::Tcp(_) => Err(Error::Shared(self.clone())),
        }
    }
}

impl FromStr for At {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text.strip_prefix("unix:") {
            Some("") => Err(Error::Form(text.into())),
            Some(path) => Ok(Self::Unix(path.into())),
            None => text.parse().map(Self::Tcp).map_err(|_| Error::Form(text.into())),
        }
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_addresses_or_paths() {
        for right in ["127.0.0.1:9100", "[::1]:9100", "unix:/run/kv.metrics"] {
            assert_eq!(right.parse::<At>().unwrap().to_string(), right);
        }
        let several: At = "unix:/run/kv-%d.metrics".parse().unwrap();
        assert_eq!(several.numbered(7).unwrap().to_string(), "unix:/run/kv-7.metrics");
        for shared in ["127.0.0.1:9100", "unix:/run/kv.metrics"] {
            assert!(shared.parse::<At>().unwrap().numbered(1).is_err(), "{shared}");
        }
        for wrong in ["", "9100", "localhost:9100", "unix:", "127.0.0.1", "tcp://127.0.0.1:1"] {
            assert!(wrong.parse::<At>().is_err(), "{wrong}");
        }
    }
}
