//! How values are written on the command line.

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

/// An Ethernet address like 02:00:00:00:00:01, one that a single host can have.
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
    if mac == [0; 6] { Err("that is nobody's address".into()) } else { Ok(mac) }
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
