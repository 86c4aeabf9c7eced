//! Boot parameters: how the command line carries network settings, environment and arguments.
//!
//! Words separated by single spaces; in a word, `%`, space, and bytes outside printable ASCII are
//! written `%XX`. Words before `--` are settings; those after it are the program's arguments.
//!
//! ```text
//! name=kv ip=10.0.0.2/24 gateway=10.0.0.1 dns=10.0.0.1 env:RUST_LOG=info -- --port 6379
//! ```
//! Known settings: `name`, `ip` (CIDR), `gateway`, `dns` (may repeat), `env:KEY=VALUE` (may
//! repeat), `mtu`, `quiesce=uart` (QEMU: answer quiesce requests on the second serial port). The
//! kernel ignores unknown settings. The MAC address is the network device's own.

use core::fmt::{self, Write};

/// Writes `bytes` as one word.
///
/// # Errors
/// Only the error of `out`.
pub fn encode_word(bytes: &[u8], out: &mut impl Write) -> fmt::Result {
    for &b in bytes {
        if b.is_ascii_graphic() && b != b'%' {
            out.write_char(b as char)?;
        } else {
            write!(out, "%{b:02X}")?;
        }
    }
    Ok(())
}

/// Decodes the output of [`encode_word`]: the bytes of a word. A `%` without two hexadecimal digits
/// after it is kept.
pub fn decode_word(word: &str) -> impl Iterator<Item = u8> + '_ {
    let bytes = word.as_bytes();
    let mut i = 0;
    core::iter::from_fn(move || {
        let b = *bytes.get(i)?;
        let hex = |k: usize| bytes.get(k).and_then(|&c| (c as char).to_digit(16));
        if let (b'%', Some(hi), Some(lo)) = (b, hex(i + 1), hex(i + 2)) {
            i += 3;
            return Some((hi * 16 + lo) as u8);
        }
        i += 1;
        Some(b)
    })
}

/// One word of the command line, still encoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Param<'a> {
    /// `key=value`, before `--`; the value is empty when there is no `=`.
    Setting {
        /// The part before the first `=`.
        key: &'a str,
        /// The part after it.
        value: &'a str,
    },
    /// A word after `--`.
    Argument(&'a str),
}

/// The parameters of a command line, in order.
pub fn parse(cmdline: &str) -> impl Iterator<Item = Param<'_>> {
    let mut in_arguments = false;
    cmdline.split(' ').filter(|w| !w.is_empty()).filter_map(move |word| {
        if in_arguments {
            // An empty argument would be encoded as an empty word, so it is sent as "%00"; see
            // `encode_argument`.
            Some(Param::Argument(if word == EMPTY { "" } else { word }))
        } else if word == "--" {
            in_arguments = true;
            None
        } else {
            let (key, value) = word.split_once('=').unwrap_or((word, ""));
            Some(Param::Setting { key, value })
        }
    })
}

/// The encoding of an empty argument: a NUL, which no argument can contain.
const EMPTY: &str = "%00";

/// Writes one argument, which may be empty.
///
/// # Errors
/// Only the error of `out`.
pub fn encode_argument(bytes: &[u8], out: &mut impl Write) -> fmt::Result {
    if bytes.is_empty() { out.write_str(EMPTY) } else { encode_word(bytes, out) }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::{string::String, vec::Vec};

    #[test]
    fn any_bytes_survive() {
        let all: Vec<u8> = (1..=255).collect();
        let mut word = String::new();
        encode_word(&all, &mut word).unwrap();
        assert!(!word.contains(' '));
        assert_eq!(decode_word(&word).collect::<Vec<_>>(), all);
    }

    #[test]
    fn settings_and_arguments_are_distinguished() {
        let got: Vec<_> = parse("ip=10.0.0.2/24 env:A=b=c -- --x %00 y=z").collect();
        assert_eq!(
            got,
            [
                Param::Setting { key: "ip", value: "10.0.0.2/24" },
                Param::Setting { key: "env:A", value: "b=c" },
                Param::Argument("--x"),
                Param::Argument(""),
                Param::Argument("y=z"),
            ]
        );
    }
}
