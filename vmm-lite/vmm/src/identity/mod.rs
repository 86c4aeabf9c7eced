//! This host's identity, and the hosts that it trusts.
//!
//! A host has an Ed25519 key pair and a self-signed certificate for it; it trusts other hosts by
//! their public keys, as SSH does, each for its roles: to send VMs here, to receive VMs from here.
//! There is no authority above the hosts. Everything is in one directory that only this user may
//! access.
//!
//! - [`key`]: public keys as text
//! - [`certificate`]: certificates, and their errors
//! - [`public`]: this host's certificate, which is not secret
//! - [`host`]: this host's key pair and certificate
//! - [`signer`]: the process with the private key during moves, so that no process with a VM has it
//! - [`trust`]: the trusted hosts
//! - [`location`]: addresses that a host's key is bound to; [`expected`](mod@expected): which hosts
//!   may answer at one
//! - [`dir`]: the directory with key, certificate and list

pub mod certificate;
pub mod dir;
pub mod expected;
pub mod host;
pub mod key;
pub mod location;
pub mod public;
pub mod signer;
pub mod trust;

pub use dir::IdentityDir;
pub use expected::{Expected, expected};
pub use host::HostIdentity;
pub use key::PublicKey;
pub use location::Location;
pub use public::HostCertificate;
pub use trust::{Role, TrustStore, Trusted};

use std::{io, path::PathBuf};

/// Errors of identities.
#[derive(thiserror::Error, Debug)]
pub enum Error {
    /// There is no identity.
    #[error(
        "this host has no identity in {}: both hosts must know each other. On each, run \
         `vmm-lite identity init`, \
         then give the other the line it printed: `vmm-lite identity trust LINE`. (--plaintext on \
         both sides does without; only on a network \
         that you trust)", .0.display()
    )]
    None(PathBuf),
    /// An identity exists, and is not replaced.
    #[error("{} holds an identity already; `vmm-lite identity show` prints it, `identity renew` \
        prolongs it", .0.display())]
    Exists(PathBuf),
    /// Other users could read or change it.
    #[error("{} must be this user's, with no access for others (chmod {mode:o})", path.display())]
    Unsafe {
        /// The file or directory.
        path: PathBuf,
        /// The mode that it should have.
        mode: u32,
    },
    /// A file operation failed.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The host's error.
        source: io::Error,
    },
    /// An invalid file.
    #[error("{} makes no sense: {what}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// Key and certificate do not form an identity.
    #[error("key and certificate make no identity: {0}")]
    Broken(String),
    /// The signer did not start.
    #[error("cannot start the process that signs with this host's key")]
    Start(#[source] io::Error),
    /// The signer cannot use the key.
    #[error("{0}")]
    Signer(String),
    /// An invalid key.
    #[error(
        "{0:?} is no host's key: it is the line that `vmm-lite identity show` prints there, such \
         as ed25519:… NAME"
    )]
    Key(String),
    /// An invalid name.
    #[error(
        "{0:?} cannot be a host's name: letters, digits, '.', '_' and '-', at most 64, not \
         beginning with '.' or '-'"
    )]
    Name(String),
    /// Another key has this name.
    #[error(
        "{name} is the name of another key that is trusted; choose another name, or `vmm-lite \
         identity revoke {name}` first"
    )]
    Taken {
        /// The name.
        name: String,
    },
    /// The list of hosts is full.
    #[error("{0} hosts are trusted already, and that is the most")]
    Full(usize),
    /// An invalid location.
    #[error(
        "{0:?} is no place of a host: write HOST or HOST:PORT as in tcp://HOST:PORT, such as \
         10.9.0.2:7000"
    )]
    Location(String),
    /// More addresses than one host may have.
    #[error("a host can be bound to {0} addresses, and no more")]
    Locations(usize),
    /// No host may receive.
    #[error(
        "no host is trusted to receive VMs from here: run `vmm-lite identity show` on the other \
         host, and here \
         `vmm-lite identity trust` with the line that it prints"
    )]
    NoReceiver,
    /// The named key does not have this role.
    #[error(
        "the key {0} that the address names is not trusted to receive VMs from here. If it should \
         be, run: \
         vmm-lite identity trust {0} NAME"
    )]
    NotReceiver(PublicKey),
    /// All hosts that may receive are bound to other addresses.
    #[error(
        "no trusted host is expected at {0}: all that may receive VMs are bound to other addresses \
         (`vmm-lite identity list`). Name the key, tcp://{0}#ed25519:…, or bind one to the \
         address: vmm-lite identity trust KEY NAME --at {0}"
    )]
    NoneThere(String),
    /// Several hosts are possible.
    #[error(
        "which host is expected at {at} is not known, as several may receive VMs ({names}). Name \
         its key, tcp://{at}#ed25519:…, or bind it to the address: vmm-lite identity trust KEY \
         NAME \
         --at {at}. (--trust-on-first-use takes any of them, and binds it)"
    )]
    AnyThere {
        /// The address.
        at: String,
        /// The possible hosts.
        names: String,
    },
    /// There is no such host to revoke.
    #[error("no host {0} is trusted; `vmm-lite identity list` shows those that are")]
    NotTrusted(String),
    /// The key is the host's own.
    #[error(
        "this host's certificate {0}; `vmm-lite identity renew` makes one that is valid for the \
         same key; is the clock right?"
    )]
    Validity(&'static str),
    /// The library cannot make a key or certificate.
    #[error("cannot make {what}: {why}")]
    Make {
        /// What.
        what: &'static str,
        /// The reason.
        why: String,
    },
}
