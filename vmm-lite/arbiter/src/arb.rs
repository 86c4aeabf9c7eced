//! Which arbiter, as the user names it.

use std::{
    collections::HashSet,
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

/// Most endpoints of one etcd.
const ENDPOINTS_MAX: usize = 16;
/// The port of an endpoint that names none.
const PORT: u16 = 2379;

/// An arbiter's name: `etcd://HOST[:PORT][,…]`, `etcds://…` or `file:/DIRECTORY`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Arb {
    /// An etcd cluster.
    Etcd(Etcd),
    /// A directory on a file system that all members share.
    File(PathBuf),
}

/// An etcd cluster, and how to speak to it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Etcd {
    /// `HOST:PORT` of its members, all of one cluster.
    pub endpoints: Vec<String>,
    /// TLS, with `etcds://`.
    pub tls: Option<Tls>,
    /// A user, and the file whose first line is the password.
    pub user: Option<(String, PathBuf)>,
}

/// How the members prove who they are, and this client who it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tls {
    /// PEM file of the certificate authority that signs the members' certificates.
    pub ca: PathBuf,
    /// PEM files of this client's certificate and key.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// Why a text names no arbiter.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
pub enum ParseError {
    /// No known kind.
    #[error(
        "{0:?} names no arbiter: give etcd://HOST:PORT[,HOST:PORT...], or file:/DIRECTORY on a \
         file system that all hosts share"
    )]
    Kind(String),
    /// The directory is relative, which means another one in every process.
    #[error("file:{0} is a relative path: give an absolute one, such as file:/shared/locks")]
    Relative(String),
    /// No endpoint, or one that is no address.
    #[error("{0:?} is no endpoint of etcd: give HOST or HOST:PORT, an IPv6 address in brackets")]
    Endpoint(String),
    /// The same endpoint twice.
    #[error("the endpoint {0} is given twice")]
    Twice(String),
    /// Too many endpoints.
    #[error("{0} endpoints, at most {ENDPOINTS_MAX}: an etcd cluster has 3 or 5 members")]
    Many(usize),
    /// An unknown option, or one without a value.
    #[error(
        "{0:?} is no option of an etcd arbiter: there are ca=FILE, cert=FILE and key=FILE (with \
         etcds://), user=NAME and password=FILE, joined by &"
    )]
    Option(String),
    /// Options that do not go together.
    #[error("{0}")]
    Together(&'static str),
}

impl FromStr for Arb {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        if let Some(path) = text.strip_prefix("file:") {
            let path = path.strip_prefix("//").filter(|p| p.starts_with('/')).unwrap_or(path);
            return match Path::new(path) {
                path if path.is_absolute() => Ok(Self::File(path.into())),
                _ => Err(ParseError::Relative(path.into())),
            };
        }
        match text.split_once("://") {
            Some(("etcd", rest)) => etcd(rest, false).map(Self::Etcd),
            Some(("etcds", rest)) => etcd(rest, true).map(Self::Etcd),
            _ => Err(ParseError::Kind(text.into())),
        }
    }
}

fn etcd(rest: &str, encrypted: bool) -> Result<Etcd, ParseError> {
    let (hosts, options) = rest.split_once('?').unwrap_or((rest, ""));
    let endpoints: Vec<_> =
        hosts.trim_end_matches('/').split(',').map(endpoint).collect::<Result<_, _>>()?;
    if endpoints.len() > ENDPOINTS_MAX {
        return Err(ParseError::Many(endpoints.len()));
    }
    let mut seen = HashSet::new();
    if let Some(twice) = endpoints.iter().find(|endpoint| !seen.insert(*endpoint)) {
        return Err(ParseError::Twice(twice.clone()));
    }
    let [mut ca, mut cert, mut key, mut user, mut password] = [const { None }; 5];
    for option in options.split('&').filter(|option| !option.is_empty()) {
        let wrong = || ParseError::Option(option.into());
        let (name, value) = option.split_once('=').ok_or_else(wrong)?;
        let place = match name {
            "ca" => &mut ca,
            "cert" => &mut cert,
            "key" => &mut key,
            "user" => &mut user,
            "password" => &mut password,
            _ => return Err(wrong()),
        };
        if value.is_empty() || place.replace(value).is_some() {
            return Err(wrong());
        }
    }
    let file = |path: &str| PathBuf::from(path);
    let client = match (cert, key) {
        (Some(cert), Some(key)) => Some((file(cert), file(key))),
        (None, None) => None,
        _ => return Err(ParseError::Together("cert=FILE and key=FILE go together")),
    };
    let tls = match (encrypted, ca) {
        (true, Some(ca)) => Some(Tls { ca: file(ca), client }),
        (true, None) => {
            return Err(ParseError::Together(
                "etcds:// needs ca=FILE, the certificate authority of the etcd members, as in \
                 etcds://10.9.0.9:2379?ca=/etc/etcd/ca.pem",
            ));
        }
        (false, None) if client.is_none() => None,
        _ => return Err(ParseError::Together("ca, cert and key are for etcds://, which uses TLS")),
    };
    let user = match (user, password) {
        (Some(user), Some(password)) => Some((user.to_owned(), file(password))),
        (None, None) => None,
        _ => {
            return Err(ParseError::Together(
                "user=NAME and password=FILE go together; the password is the first line of FILE, \
                 so that no command line shows it",
            ));
        }
    };
    Ok(Etcd { endpoints, tls, user })
}

/// `HOST:PORT` of an endpoint.
fn endpoint(text: &str) -> Result<String, ParseError> {
    let wrong = || ParseError::Endpoint(text.into());
    let (host, port) = match text.rsplit_once(':') {
        // The colons of an address in brackets are not before a port.
        Some((host, port)) if !port.ends_with(']') => {
            (host, port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?)
        }
        _ => (text, PORT),
    };
    let valid = match host.strip_prefix('[') {
        Some(rest) => {
            rest.strip_suffix(']').is_some_and(|a| a.parse::<std::net::Ipv6Addr>().is_ok())
        }
        None => {
            !host.is_empty()
                && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-'))
        }
    };
    if valid { Ok(format!("{host}:{port}")) } else { Err(wrong()) }
}

impl fmt::Display for Arb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Etcd(etcd) = self else {
            let Self::File(path) = self else { unreachable!("there are two kinds") };
            return write!(f, "file:{}", path.display());
        };
        let kind = if etcd.tls.is_some() { "etcds" } else { "etcd" };
        write!(f, "{kind}://{}", etcd.endpoints.join(","))?;
        let mut options = Vec::new();
        if let Some(tls) = &etcd.tls {
            options.push(("ca", tls.ca.display().to_string()));
            if let Some((cert, key)) = &tls.client {
                options.push(("cert", cert.display().to_string()));
                options.push(("key", key.display().to_string()));
            }
        }
        if let Some((user, password)) = &etcd.user {
            options.push(("user", user.clone()));
            options.push(("password", password.display().to_string()));
        }
        for (n, (name, value)) in options.iter().enumerate() {
            write!(f, "{}{name}={value}", if n == 0 { '?' } else { '&' })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arbiters_are_read_and_shown_in_one_form() {
        for (text, shown) in [
            ("etcd://10.9.0.9:2379", "etcd://10.9.0.9:2379"),
            ("etcd://a.example,[::1]:3,10.0.0.1/", "etcd://a.example:2379,[::1]:3,10.0.0.1:2379"),
            ("etcd://[::1]", "etcd://[::1]:2379"),
            ("etcds://e:1?ca=/ca.pem", "etcds://e:1?ca=/ca.pem"),
            ("etcd://e:1?password=/p&user=u", "etcd://e:1?user=u&password=/p"),
            (
                "etcds://e:1?key=/k&cert=/c&ca=/a&user=u&password=/p",
                "etcds://e:1?ca=/a&cert=/c&key=/k&user=u&password=/p",
            ),
            ("file:/shared/locks", "file:/shared/locks"),
            ("file:///shared/locks", "file:/shared/locks"),
        ] {
            let arb: Arb = text.parse().unwrap();
            assert_eq!(arb.to_string(), shown);
            assert_eq!(arb, shown.parse().unwrap());
        }
    }

    #[test]
    fn wrong_arbiters_are_refused_with_the_right_form() {
        for (text, says) in [
            ("", "give etcd://HOST:PORT"),
            ("10.9.0.9:2379", "give etcd://HOST:PORT"),
            ("http://10.9.0.9:2379", "give etcd://HOST:PORT"),
            ("file:locks", "an absolute one"),
            ("file:", "an absolute one"),
            ("etcd://", "is no endpoint"),
            ("etcd://a,,b", "is no endpoint"),
            ("etcd://a:0", "is no endpoint"),
            ("etcd://a:70000", "is no endpoint"),
            ("etcd://::1", "brackets"),
            ("etcd://a b", "is no endpoint"),
            ("etcd://u:p@a", "is no endpoint"),
            ("etcd://a,a:2379", "given twice"),
            ("etcd://a?ttl=3", "is no option"),
            ("etcd://a?user=", "is no option"),
            ("etcd://a?user=u&user=v", "is no option"),
            ("etcd://a?user=u", "go together"),
            ("etcd://a?ca=/c", "are for etcds://"),
            ("etcds://a", "needs ca=FILE"),
            ("etcds://a?ca=/c&cert=/d", "go together"),
        ] {
            let said = text.parse::<Arb>().unwrap_err().to_string();
            assert!(said.contains(says), "{text}: {said}");
        }
        let many = (0..17).map(|n| format!("h{n}")).collect::<Vec<_>>().join(",");
        assert_eq!(format!("etcd://{many}").parse::<Arb>(), Err(ParseError::Many(17)));
    }
}
