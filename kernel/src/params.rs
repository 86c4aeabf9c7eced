//! Boot parameters: the command line, and what `std` needs of it.

use alloc::{string::String, vec::Vec};
use core::net::IpAddr;

use vmm_lite_interface::params::{Param, decode_word, parse};

use crate::cpu::KernelCell;

static LINE: KernelCell<&'static str> = KernelCell::new("");

/// Keeps the command line.
pub fn init(line: &'static str) {
    LINE.with(|kept| *kept = line);
}

/// What was given since to a guest that is a copy of the one that was booted.
static ADOPTED: KernelCell<Adopted> = KernelCell::new(Adopted { ip: None, dns: None });

#[derive(Debug)]
struct Adopted {
    ip: Option<(IpAddr, u8)>,
    dns: Option<Vec<IpAddr>>,
}

/// Uses what is given in place of the command line's.
pub fn adopt(ip: Option<(IpAddr, u8)>, dns: Option<Vec<IpAddr>>) {
    ADOPTED.with(|adopted| {
        adopted.ip = ip.or(adopted.ip);
        adopted.dns = dns.or_else(|| adopted.dns.take());
    });
}

fn line() -> &'static str {
    LINE.with(|line| *line)
}

/// Own address and the length of its network's prefix.
#[must_use]
pub fn ip() -> Option<(IpAddr, u8)> {
    let adopted = ADOPTED.with(|adopted| adopted.ip);
    adopted.or_else(|| values(line(), "ip").find_map(|v| cidr(&v)))
}

/// Where packets to other networks go.
#[must_use]
pub fn gateway() -> Option<IpAddr> {
    values(line(), "gateway").find_map(|v| v.parse().ok())
}

/// Name servers, in the order to ask.
#[must_use]
pub fn dns() -> Vec<IpAddr> {
    let adopted = ADOPTED.with(|adopted| adopted.dns.clone());
    adopted.unwrap_or_else(|| values(line(), "dns").filter_map(|v| v.parse().ok()).collect())
}

/// Largest IP packet that the network takes, bytes, if it is given.
#[must_use]
pub fn mtu() -> Option<u16> {
    values(line(), "mtu").find_map(|v| v.parse().ok())
}

/// Name of the VM.
#[must_use]
pub fn hostname() -> Option<String> {
    values(line(), "name").next()
}

/// Whether quiesce requests come over the second serial port.
#[must_use]
pub fn quiesce_over_uart() -> bool {
    values(line(), "quiesce").any(|v| v == "uart")
}

/// Arguments and environment as NUL-terminated strings: the program's name first, then its
/// arguments; `KEY=VALUE`.
#[must_use]
pub fn for_program() -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    strings(line())
}

fn strings(line: &str) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let terminated = |word: &mut dyn Iterator<Item = u8>| -> Vec<u8> {
        word.filter(|b| *b != 0).chain([0]).collect()
    };
    let name = values(line, "name").next().unwrap_or_else(|| "program".into());
    let mut args = alloc::vec![terminated(&mut name.bytes())];
    let mut env = Vec::new();
    for param in parse(line) {
        match param {
            Param::Argument(word) => args.push(terminated(&mut decode_word(word))),
            Param::Setting { key, value } => {
                if let Some(key) = key.strip_prefix("env:") {
                    let pair = &mut decode_word(key).chain([b'=']).chain(decode_word(value));
                    env.push(terminated(pair));
                }
            }
        }
    }
    (args, env)
}

/// Values of a setting, in order; those that are not UTF-8 are left out.
fn values<'a>(line: &'a str, key: &'a str) -> impl Iterator<Item = String> + 'a {
    parse(line).filter_map(move |param| match param {
        Param::Setting { key: k, value } if k == key => {
            String::from_utf8(decode_word(value).collect()).ok()
        }
        _ => None,
    })
}

fn cidr(text: &str) -> Option<(IpAddr, u8)> {
    let (address, prefix) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let prefix = prefix.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    (prefix <= most).then_some((address, prefix))
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::Ipv4Addr;
    use proptest::prelude::*;
    use vmm_lite_interface::params::{encode_argument, encode_word};

    #[test]
    fn settings_are_found() {
        assert_eq!(cidr("10.0.0.2/24"), Some((Ipv4Addr::new(10, 0, 0, 2).into(), 24)));
        for wrong in ["10.0.0.2", "10.0.0.2/33", "x/24", "10.0.0.2/", "::1/129"] {
            assert_eq!(cidr(wrong), None);
        }
        init("name=k%20v ip=bad ip=10.0.0.2/24 dns=10.0.0.1 dns=? dns=10.0.0.3 mtu=1400 other");
        assert_eq!(hostname().as_deref(), Some("k v"));
        assert_eq!(ip(), Some((Ipv4Addr::new(10, 0, 0, 2).into(), 24)));
        assert_eq!(gateway(), None);
        assert_eq!(dns(), [Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 3)]);
        assert_eq!(mtu(), Some(1400));
        assert!(!quiesce_over_uart());
        let new = (Ipv4Addr::new(10, 0, 0, 9).into(), 16);
        adopt(Some(new), None);
        assert_eq!((ip(), dns().len()), (Some(new), 2));
        adopt(None, Some(Vec::new()));
        assert_eq!((ip(), dns().len()), (Some(new), 0));
        adopt(None, None);
        assert_eq!((ip(), dns().len()), (Some(new), 0));
    }

    proptest! {
        #[test]
        fn arguments_and_environment_arrive(
            given in proptest::collection::vec(proptest::collection::vec(1..=255_u8, 0..20), 0..6),
            value in proptest::collection::vec(1..=255_u8, 0..20),
        ) {
            let mut line = String::from("name=x env:KEY=");
            encode_word(&value, &mut line).unwrap();
            line.push_str(" --");
            for arg in &given {
                line.push(' ');
                encode_argument(arg, &mut line).unwrap();
            }
            let (args, env) = strings(&line);
            let with_nul = |bytes: &[u8]| [bytes, b"\0"].concat();
            let expected: Vec<_> =
                core::iter::once(with_nul(b"x")).chain(given.iter().map(|a| with_nul(a))).collect();
            prop_assert_eq!(args, expected);
            prop_assert_eq!(env, [with_nul(&[b"KEY=", value.as_slice()].concat())]);
        }
    }
}
