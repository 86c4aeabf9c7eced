//! Figures of a VM for Prometheus: as text, and served to whoever scrapes it.

mod http;
pub mod text;

pub use http::Endpoint;

use std::{fmt, net::SocketAddr, path::PathBuf, str::FromStr};

/// Where figures are served: `ADDRESS:PORT`, or `unix:PATH`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum At {
    /// Over TCP.
    Tcp(SocketAddr),
    /// At a Unix socket.
    Unix(PathBuf),
}

/// Why figures cannot be served.
#[derive(thiserror::Error, Debug)]
pub enum Error {
    /// No place.
    #[error(
        "{0:?} is nowhere to serve metrics: write ADDRESS:PORT, such as 127.0.0.1:9100, or unix:PATH"
    )]
    Form(String),
    /// One that cannot be had.
    #[error("cannot serve metrics at {at}")]
    Listen {
        /// Where.
        at: At,
        /// What the host says.
        source: std::io::Error,
    },
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
        for wrong in ["", "9100", "localhost:9100", "unix:", "127.0.0.1", "tcp://127.0.0.1:1"] {
            assert!(wrong.parse::<At>().is_err(), "{wrong}");
        }
    }
}
