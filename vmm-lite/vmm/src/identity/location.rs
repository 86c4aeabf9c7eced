//! A trusted host's expected address, which its key is bound to.

use super::Error;
use std::{fmt, net::IpAddr, str::FromStr};

/// Longest host name.
const HOST_MAX: usize = 253;

/// `HOST`, or `HOST:PORT`, with the host as in `tcp://HOST:PORT`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Location {
    /// A name in lower case, or an IP address in its canonical form, without brackets.
    host: String,
    /// `None` for every port.
    port: Option<u16>,
}

impl Location {
    /// Whether it is the location of `tcp://HOST:PORT`.
    #[must_use]
    pub fn is(&self, host: &str, port: u16) -> bool {
        self.host == canonical(host) && self.port.is_none_or(|own| own == port)
    }

    /// A location with a port.
    #[must_use]
    pub fn of(host: &str, port: u16) -> Self {
        Self { host: canonical(host), port: Some(port) }
    }
}

fn canonical(host: &str) -> String {
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    match bare.parse::<IpAddr>() {
        Ok(address) => address.to_string(),
        Err(_) => host.to_ascii_lowercase(),
    }
}

impl FromStr for Location {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = || Error::Location(text.chars().take(100).collect());
        // An IPv6 address contains colons: with a port it is in brackets.
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
                (host, Some(port.parse().map_err(|_| wrong())?))
            }
            _ => (text, None),
        };
        let host = canonical(host);
        let name = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let fine = host.parse::<IpAddr>().is_ok()
            || !host.is_empty() && host.len() <= HOST_MAX && host.chars().all(name);
        if fine { Ok(Self { host, port }) } else { Err(wrong()) }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) if self.host.contains(':') => write!(f, "[{}]:{port}", self.host),
            Some(port) => write!(f, "{}:{port}", self.host),
            None => f.write_str(&self.host),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_is_read_and_written_in_one_spelling() {
        for (text, written) in [
            ("10.9.0.2", "10.9.0.2"),
            ("10.9.0.2:7000", "10.9.0.2:7000"),
            ("HostB.Example:7000", "hostb.example:7000"),
            ("fe80:0::1", "fe80::1"),
            ("[fe80:0::1]", "fe80::1"),
            ("[fe80::1]:7000", "[fe80::1]:7000"),
        ] {
            let location: Location = text.parse().unwrap();
            assert_eq!(location.to_string(), written);
            assert_eq!(written.parse::<Location>().unwrap(), location);
        }
        for wrong in ["", ":7000", "a:b", "a:70000", "tcp://a:1", "a b", "a,b", "a:", "[::1"] {
            let said = wrong.parse::<Location>().unwrap_err().to_string();
            assert!(said.contains("HOST:PORT"), "{wrong}: {said}");
        }
    }

    #[test]
    fn a_location_without_a_port_is_every_port_of_its_host() {
        let is = |text: &str, host| text.parse::<Location>().unwrap().is(host, 7000);
        assert!(is("hostb", "HOSTB") && is("hostb:7000", "hostb") && is("::1", "[::1]"));
        assert!(is("::1", "[0::1]") && Location::of("[::1]", 7000).is("::1", 7000));
        assert!(!is("hostb:7001", "hostb") && !is("hostb", "hostc") && !is("10.9.0.2", "hostb"));
    }
}
