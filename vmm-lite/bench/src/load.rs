//! The programs in the guest, and their clients.

use std::net::SocketAddr;

use vmm_lite_lab::{
    Error, Result, images::image, probe::Connection, process::Process, redis, site::Site,
    vmm::TIMEOUT,
};

use crate::system::{DIRTIER_MEMORY_MIB, GUEST_IP, Guest, KV_MEMORY_MIB};

/// The port of the key-value store.
pub const KV_PORT: u16 = 6379;
/// The port of dirtier's status.
pub const DIRTIER_PORT: u16 = 7070;

/// A guest and its load.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Load {
    /// The key-value store, with no client but the watching one.
    KvIdle,
    /// The key-value store under redis-benchmark.
    KvLoaded,
    /// A program that rewrites this many pages as fast as it can.
    Dirtier {
        /// Number of pages.
        pages: u32,
    },
}

impl Load {
    /// All loads.
    pub const ALL: [Self; 5] = [
        Self::KvIdle,
        Self::KvLoaded,
        Self::Dirtier { pages: 64 },
        Self::Dirtier { pages: 1024 },
        Self::Dirtier { pages: 4096 },
    ];

    /// Its name in tables.
    pub fn name(self) -> String {
        match self {
            Self::KvIdle => "kv, idle".into(),
            Self::KvLoaded => "kv, redis-benchmark".into(),
            Self::Dirtier { pages } => format!("dirtier, {pages} pages"),
        }
    }

    /// Its name on the command line.
    pub fn key(self) -> String {
        match self {
            Self::KvIdle => "kv-idle".into(),
            Self::KvLoaded => "kv-loaded".into(),
            Self::Dirtier { pages } => format!("dirtier-{pages}"),
        }
    }

    /// Whether it is the key-value store.
    pub fn is_kv(self) -> bool {
        matches!(self, Self::KvIdle | Self::KvLoaded)
    }

    /// The guest to start.
    pub fn guest(self) -> Result<Guest> {
        Ok(match self {
            Self::KvIdle | Self::KvLoaded => {
                Guest { image: image("kv")?, memory_mib: KV_MEMORY_MIB, args: Vec::new() }
            }
            Self::Dirtier { pages } => dirtier(pages, DIRTIER_MEMORY_MIB)?,
        })
    }

    /// The clients that load it until dropped, once it has been started.
    pub fn clients(self, site: &Site) -> Result<Option<Process>> {
        if !self.is_kv() {
            return Ok(None);
        }
        drop(Connection::open_when_up(&site.client, kv_address(), TIMEOUT)?);
        let args = ["-t", "set,get", "-c", "8", "-r", "1000"];
        let load = || redis::background_load(&site.client, kv_address(), &args);
        (self == Self::KvLoaded).then(load).transpose()
    }
}

/// The key that [`fill`] leaves in the store, and its value.
pub const KEPT: (&str, &str) = ("bench:kept", "8f1c29e0-4b7d");

/// Puts about two megabytes into the key-value store, once it has been started, with redis's own
/// tools.
pub fn fill(site: &Site) -> Result<()> {
    drop(Connection::open_when_up(&site.client, kv_address(), TIMEOUT)?);
    let args = ["-t", "set", "-n", "20000", "-r", "6000", "-d", "256", "-c", "8", "-P", "8"];
    redis::benchmark(&site.client, kv_address(), &args)?;
    let (key, value) = KEPT;
    match redis::cli(&site.client, kv_address(), &["SET", key, value])?.as_str() {
        "OK" => Ok(()),
        other => Err(Error::Protocol { what: "SET".into(), said: other.into() }),
    }
}

/// A guest that rewrites `pages` pages.
pub fn dirtier(pages: u32, memory_mib: u32) -> Result<Guest> {
    let (pages, port) = (pages.to_string(), DIRTIER_PORT.to_string());
    let args = ["--pages", &pages, "--port", &port, "--quiet"].map(str::to_owned);
    Ok(Guest { image: image("dirtier")?, memory_mib, args: args.into() })
}

/// The address of the key-value store.
pub fn kv_address() -> SocketAddr {
    format!("{GUEST_IP}:{KV_PORT}").parse().expect("constants")
}
