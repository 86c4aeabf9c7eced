//! Command-line options for the rate limits of a guest's network and console.

use super::arguments;
use std::{num::NonZeroU64, time::Duration};
use vmm::devices::{
    rate::Rate,
    throttle::{NetRate, Rates},
};

/// Default burst: what arrives in this time,
const BURST: Duration = Duration::from_millis(100);
/// at least one packet of the largest kind,
const BURST_BYTES: u64 = 64 << 10;
/// or this many packets.
const BURST_PACKETS: u64 = 64;

/// Options for the rates. They belong to this process and not to the VM: a VM that moves gets the
/// rates of the `receive` that takes it.
#[derive(clap::Args, Clone, Copy, Debug)]
#[group(skip)]
pub struct Args {
    /// Rate limit of the network in each direction: bytes (like 100Mbit or 12.5MB per second),
    /// packets per second, or both. Excess packets wait: the guest's in its queue, those to the
    /// guest in the TAP device's queue, which drops what it has no room for. burst= is how much
    /// passes at once after idle time [default: 100 ms' worth, at least 64K]
    #[arg(long, value_name = "RATE[,burst=SIZE][,packets=N]", value_parser = net_rate)]
    net_rate: Option<NetRate>,

    /// Rate limit of the console; a guest that prints faster waits [default burst: 100 ms' worth,
    /// at least 64K]
    #[arg(long, value_name = "RATE[,burst=SIZE]", value_parser = console_rate)]
    console_rate: Option<Rate>,
}

impl Args {
    /// The rate limits.
    #[must_use]
    pub fn rates(&self) -> Rates {
        Rates { net: self.net_rate.unwrap_or_default(), console: self.console_rate }
    }
}

fn net_rate(text: &str) -> Result<NetRate, String> {
    let Parts { bytes, packets } = parts(text)?;
    Ok(NetRate { bytes, packets })
}

fn console_rate(text: &str) -> Result<Rate, String> {
    match parts(text)? {
        Parts { bytes: Some(rate), packets: None } => Ok(rate),
        _ => Err("write a rate like 64kB or 64kB,burst=1M (a second)".into()),
    }
}

struct Parts {
    bytes: Option<Rate>,
    packets: Option<Rate>,
}

fn parts(text: &str) -> Result<Parts, String> {
    let (mut bytes, mut packets, mut burst) = (None, None, None);
    for part in text.split(',') {
        let twice = match part.split_once('=') {
            None => bytes.replace(number(arguments::bandwidth(part)?)?).is_some(),
            Some(("burst", size)) => burst.replace(number(arguments::size(size)?)?).is_some(),
            Some(("packets", n)) => {
                let n = n.strip_suffix("/s").unwrap_or(n);
                let n = n.parse().map_err(|_| "write packets like packets=20000 (a second)")?;
                packets.replace(number(n)?).is_some()
            }
            Some((what, _)) => return Err(format!("{what} is neither burst nor packets")),
        };
        if twice {
            return Err(format!("{part} is the second of its kind"));
        }
    }
    if burst.is_some() && bytes.is_none() {
        return Err("a burst needs a rate of bytes, like 100Mbit,burst=1M".into());
    }
    let bytes = bytes.map(|rate| Rate {
        per_second: rate,
        burst: burst.unwrap_or_else(|| default_burst(rate, BURST_BYTES)),
    });
    let packets =
        packets.map(|rate| Rate { per_second: rate, burst: default_burst(rate, BURST_PACKETS) });
    Ok(Parts { bytes, packets })
}

fn default_burst(per_second: NonZeroU64, least: u64) -> NonZeroU64 {
    let comes = Rate { per_second, burst: NonZeroU64::MAX }.tokens_in(BURST);
    NonZeroU64::new(comes.max(least)).unwrap_or(NonZeroU64::MIN)
}

fn number(n: u64) -> Result<NonZeroU64, String> {
    NonZeroU64::new(n).ok_or_else(|| "0 would be no rate; leave the option out for none".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(per_second: u64, burst: u64) -> Rate {
        let number = |n| NonZeroU64::new(n).unwrap();
        Rate { per_second: number(per_second), burst: number(burst) }
    }

    #[test]
    fn a_rate_has_a_burst_of_its_own_or_a_tenth_of_a_second() {
        let net = net_rate("100Mbit/s").unwrap();
        assert_eq!((net.bytes, net.packets), (Some(rate(12_500_000, 1_250_000)), None));
        let net = net_rate("8Mbit,burst=2M,packets=500").unwrap();
        let packets = Some(rate(500, 64));
        assert_eq!((net.bytes, net.packets), (Some(rate(1_000_000, 2 << 20)), packets));
        let net = net_rate("packets=20000/s").unwrap();
        assert_eq!((net.bytes, net.packets), (None, Some(rate(20_000, 2000))));
        assert_eq!(console_rate("10kB"), Ok(rate(10_000, 64 << 10)));
        assert_eq!(console_rate("10kB/s,burst=1K"), Ok(rate(10_000, 1024)));
    }

    #[test]
    fn an_invalid_rate_has_an_error_that_says_why() {
        for (text, said) in [
            ("", "write a rate like 1Gbit"),
            ("fast", "write a rate like 1Gbit"),
            ("1Mbit,2Mbit", "second of its kind"),
            ("1Mbit,burst=1M,burst=2M", "second of its kind"),
            ("1Mbit,burst=0", "0 would be no rate"),
            ("packets=0", "0 would be no rate"),
            ("packets=many", "packets=20000"),
            ("burst=1M", "a burst needs a rate"),
            ("burst=1M,packets=7", "a burst needs a rate"),
            ("1Mbit,refill=7", "neither burst nor packets"),
        ] {
            let error = net_rate(text).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
        assert!(console_rate("packets=7").unwrap_err().contains("64kB"));
        assert!(console_rate("1kB,packets=7").unwrap_err().contains("64kB"));
    }
}
