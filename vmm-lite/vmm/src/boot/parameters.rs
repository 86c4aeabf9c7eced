//! Parameters that the guest gets at boot; see `vmm_lite_interface::params`.

use std::{ffi::OsString, fmt, net::IpAddr, os::unix::ffi::OsStrExt, str::FromStr};
use vmm_lite_interface::{
    layout::CMDLINE_MAX,
    params::{encode_argument, encode_word},
};

/// Why parameters cannot be passed to a guest.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
pub enum Error {
    /// They do not fit.
    #[error(
        "arguments and environment take {0} bytes, written out for the guest; {max} are the most \
         it can be given", max = CMDLINE_MAX - 1
    )]
    TooLong(usize),
    /// Not an address with a prefix length.
    #[error("{0:?} is not an address with a prefix length, such as 10.0.0.2/24")]
    Cidr(String),
}

/// An address and the length of its network's prefix.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct Cidr {
    /// The address.
    pub address: IpAddr,
    /// The prefix length in bits.
    pub prefix: u8,
}

impl FromStr for Cidr {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self, Error> {
        let wrong = || Error::Cidr(s.into());
        let (address, prefix) = s.split_once('/').ok_or_else(wrong)?;
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let prefix = prefix.parse().map_err(|_| wrong())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        if prefix > most { Err(wrong()) } else { Ok(Self { address, prefix }) }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// The parameters of a guest at boot.
#[derive(Clone, Debug, Default)]
pub struct Parameters {
    /// Its name.
    pub name: String,
    /// Its address.
    pub ip: Option<Cidr>,
    /// The gateway to other networks.
    pub gateway: Option<IpAddr>,
    /// The name servers.
    pub dns: Vec<IpAddr>,
    /// Environment, as `KEY=VALUE`.
    pub env: Vec<OsString>,
    /// Arguments of the program, without its own name.
    pub args: Vec<OsString>,
}

impl Parameters {
    /// The command line that carries them.
    ///
    /// # Errors
    /// [`Error::TooLong`].
    pub fn cmdline(&self) -> Result<String, Error> {
        let mut line = String::new();
        let fine = "writing to a String does not fail";
        let mut setting = |key: &str, value: &[u8]| {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(key);
            encode_word(value, &mut line).expect(fine);
        };
        setting("name=", self.name.as_bytes());
        if let Some(ip) = &self.ip {
            setting("ip=", ip.to_string().as_bytes());
        }
        if let Some(gateway) = &self.gateway {
            setting("gateway=", gateway.to_string().as_bytes());
        }
        self.dns.iter().for_each(|dns| setting("dns=", dns.to_string().as_bytes()));
        self.env.iter().for_each(|env| setting("env:", env.as_bytes()));
        if !self.args.is_empty() {
            line.push_str(" --");
        }
        for arg in &self.args {
            line.push(' ');
            encode_argument(arg.as_bytes(), &mut line).expect(fine);
        }
        if line.len() >= CMDLINE_MAX as usize { Err(Error::TooLong(line.len())) } else { Ok(line) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_said() {
        let parameters = Parameters {
            name: "kv".into(),
            ip: Some("10.0.0.2/24".parse().unwrap()),
            gateway: Some("10.0.0.1".parse().unwrap()),
            dns: vec!["10.0.0.1".parse().unwrap(), "::1".parse().unwrap()],
            env: vec!["A=b c".into()],
            args: vec!["--port".into(), "".into(), "x y".into()],
        };
        assert_eq!(
            parameters.cmdline().unwrap(),
            "name=kv ip=10.0.0.2/24 gateway=10.0.0.1 dns=10.0.0.1 dns=::1 env:A=b%20c -- --port \
             %00 x%20y"
        );
    }

    #[test]
    fn too_much_is_refused() {
        let args = vec!["x".repeat(CMDLINE_MAX as usize).into()];
        let error = Parameters { args, ..Default::default() }.cmdline().unwrap_err();
        assert!(error.to_string().contains("65535 are the most"), "{error}");
    }

    #[test]
    fn only_addresses_with_a_prefix_are_taken() {
        for wrong in ["10.0.0.2", "10.0.0.2/33", "x/24", "10.0.0.2/", "::1/129"] {
            assert!(wrong.parse::<Cidr>().is_err(), "{wrong}");
        }
        assert_eq!("fd00::2/64".parse::<Cidr>().unwrap().to_string(), "fd00::2/64");
    }
}
