//! Fills the guest with values of its key-value store, of bytes that look random and can be
//! checked.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
};

use vmm_lite_lab::{Error, Result, site::Site};

use crate::system::connect;

const KV_PORT: u16 = 6379;
/// Size of a value, in bytes.
const VALUE: usize = 64 << 10;
const VALUES_PER_MIB: u64 = (1 << 20) / VALUE as u64;

/// A connection to the store.
pub struct Store(BufReader<TcpStream>);

impl Store {
    /// Connects from the site's client, as soon as the store listens.
    pub fn open(site: &Site) -> Result<Self> {
        Ok(Self(BufReader::new(connect(site, KV_PORT)?)))
    }

    /// Sets values of `mib` MiB.
    pub fn fill(&mut self, mib: u64) -> Result<()> {
        let mut value = vec![0; VALUE];
        for n in 0..mib * VALUES_PER_MIB {
            content(n, &mut value);
            let key = n.to_string();
            let head =
                format!("*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${VALUE}\r\n", key.len()).into_bytes();
            let stream = self.0.get_mut();
            let sent = [&head[..], &value, b"\r\n"].iter().try_for_each(|b| stream.write_all(b));
            sent.map_err(failed)?;
            self.answer("+OK").map_err(|e| wrong(format!("setting value {n}: {e}")))?;
        }
        Ok(())
    }

    /// Checks that all of them are unchanged.
    pub fn check(&mut self, mib: u64) -> Result<()> {
        let (mut expected, mut found) = (vec![0; VALUE], vec![0; VALUE]);
        for n in 0..mib * VALUES_PER_MIB {
            self.0.get_mut().write_all(format!("GET {n}\r\n").as_bytes()).map_err(failed)?;
            self.answer(&format!("${VALUE}"))?;
            self.0.read_exact(&mut found).map_err(failed)?;
            self.answer("")?;
            content(n, &mut expected);
            if found != expected {
                return Err(wrong(format!("value {n} is not as it was set")));
            }
        }
        Ok(())
    }

    fn answer(&mut self, expected: &str) -> Result<()> {
        let mut line = String::new();
        self.0.read_line(&mut line).map_err(failed)?;
        if line.strip_suffix("\r\n") == Some(expected) { Ok(()) } else { Err(wrong(line)) }
    }
}

fn content(n: u64, value: &mut [u8]) {
    fastrand::Rng::with_seed(n).fill(value);
}

fn failed(source: std::io::Error) -> Error {
    Error::Io { what: "talk to the store in the guest".into(), source }
}

fn wrong(said: String) -> Error {
    Error::Protocol { what: "the store in the guest".into(), said }
}
