//! Syntax of values on the command line.

use serde::{Deserialize, Serialize};
use std::time::Duration;
use vmm::host::watchdog::LIMIT_MIN;

/// A size of memory: bytes, or with K, M or G (also KiB, MiB, GiB) for powers of 1024.
///
/// # Errors
/// A text for the user.
pub fn size(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        _ => return Err("write a size like 16M, 1G or 16777216".into()),
    };
    let number: u64 =
        number.parse().map_err(|_| "write a size like 16M, 1G or 16777216".to_owned())?;
    number.checked_mul(1 << shift).ok_or_else(|| "that is more than any machine has".into())
}

/// A time like 500us, 1ms, 2.5s, 1min.
///
/// # Errors
/// A text for the user.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "write a time like 500us, 1ms, 2.5s or 1min".to_owned();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let seconds = match unit {
        "us" | "µs" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "min" => 60.0,
        _ => return Err(wrong()),
    };
    let number: f64 = number.parse().map_err(|_| wrong())?;
    match Duration::try_from_secs_f64(number * seconds) {
        Ok(time) if !time.is_zero() => Ok(time),
        _ => Err(wrong()),
    }
}

/// How long a thread may take to answer before the watchdog warns; `None`: without limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Watchdog(pub Option<Duration>);

/// A limit of the watchdog, or `off`.
///
/// # Errors
/// A text for the user.
pub fn watchdog(text: &str) -> Result<Watchdog, String> {
    if text == "off" {
        return Ok(Watchdog(None));
    }
    let time = duration(text).map_err(|e| format!("{e}, or off"))?;
    if time < LIMIT_MIN {
        return Err("at least 1s: on a busy host a thread may have to wait for a CPU".into());
    }
    Ok(Watchdog(Some(time)))
}

/// An address, in hexadecimal with or without `0x`.
///
/// # Errors
/// A text for the user.
pub fn address(text: &str) -> Result<u64, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err("write an address like 0x10a2f4".into());
    }
    u64::from_str_radix(digits, 16).map_err(|_| "write an address like 0x10a2f4".into())
}

/// A rate like 1Gbit or 125MB per second; returns bytes per second. Units are powers of 1000, as
/// usual for networks.
///
/// # Errors
/// A text for the user.
pub fn bandwidth(text: &str) -> Result<u64, String> {
    let wrong = || "write a rate like 1Gbit, 500Mbit or 125MB (a second)".to_owned();
    let text = text.strip_suffix("/s").unwrap_or(text);
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let (scale, what) = match unit.as_bytes().first() {
        Some(b'k' | b'K') => (1e3, &unit[1..]),
        Some(b'M') => (1e6, &unit[1..]),
        Some(b'G') => (1e9, &unit[1..]),
        _ => (1.0, unit),
    };
    let bytes = match what {
        "bit" => 0.125,
        "B" => 1.0,
        _ => return Err(wrong()),
    };
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let rate = number * scale * bytes;
    if (1.0..1e15).contains(&rate) { Ok(rate as u64) } else { Err(wrong()) }
}

/// An Ethernet address like 02:00:00:00:00:01; it must be a unicast address.
///
/// # Errors
/// A text for the user.
pub fn mac(text: &str) -> Result<[u8; 6], String> {
    let wrong = || "write an Ethernet address like 02:00:00:00:00:01".to_owned();
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        let part = parts.next().filter(|p| p.len() == 2).ok_or_else(wrong)?;
        *byte = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
    }
    if parts.next().is_some() {
        return Err(wrong());
    }
    if mac[0] & 1 == 1 {
        return Err("that is a group's address; the lowest bit of the first byte must be 0".into());
    }
    if mac == [0; 6] { Err("no host has that address".into()) } else { Ok(mac) }
}

/// A variable like KEY=VALUE.
///
/// # Errors
/// A text for the user.
pub fn env(text: &str) -> Result<std::ffi::OsString, String> {
    match text.split_once('=') {
        Some((key, _)) if !key.is_empty() => Ok(text.into()),
        _ => Err("write a variable like KEY=VALUE".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(size("16M"), Ok(16 << 20));
        assert_eq!(size("1GiB"), Ok(1 << 30));
        assert_eq!(size("4096"), Ok(4096));
        for wrong in ["", "M", "1.5G", "16X", "-1", "99999999999999999999", "18446744073709551615K"]
        {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn times() {
        assert_eq!(duration("500us"), Ok(Duration::from_micros(500)));
        assert_eq!(duration("1ms"), Ok(Duration::from_millis(1)));
        assert_eq!(duration("2.5s"), Ok(Duration::from_millis(2500)));
        assert_eq!(duration("1min"), Ok(Duration::from_secs(60)));
        for wrong in ["", "1", "ms", "0s", "-1s", "1h", "1..2s", "99999999999999999999999s"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn limits_of_the_watchdog() {
        assert_eq!(watchdog("5s"), Ok(Watchdog(Some(vmm::host::watchdog::LIMIT))));
        assert_eq!(watchdog("1min"), Ok(Watchdog(Some(Duration::from_secs(60)))));
        assert_eq!(watchdog("off"), Ok(Watchdog(None)));
        for wrong in ["", "5", "999ms", "0s", "none"] {
            assert!(watchdog(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn rates() {
        assert_eq!(bandwidth("1Gbit"), Ok(125_000_000));
        assert_eq!(bandwidth("12.5MB/s"), Ok(12_500_000));
        assert_eq!(bandwidth("800kbit/s"), Ok(100_000));
        assert_eq!(bandwidth("64B"), Ok(64));
        for wrong in ["", "1", "Gbit", "1G", "1Tbit", "0bit", "-1Gbit", "1Gbps"] {
            assert!(bandwidth(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn ethernet_addresses() {
        assert_eq!(mac("02:00:00:aB:00:01"), Ok([2, 0, 0, 0xab, 0, 1]));
        for wrong in [
            "",
            "02:00:00:00:00",
            "02:00:00:00:00:01:02",
            "03:00:00:00:00:01",
            "00:00:00:00:00:00",
            "2:0:0:0:0:1",
            "0g:00:00:00:00:01",
        ] {
            assert!(mac(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn variables() {
        assert_eq!(env("A=b=c").unwrap(), "A=b=c");
        assert!(env("A").is_err() && env("=b").is_err());
    }
}
