//! The one change that an arbiter makes: a compare-and-swap of a set's record.

use crate::record::{Record, SetId, Version, Versioned};
use serde::{Deserialize, Serialize};
use std::{fmt, io};

/// Random bytes that name the swap by which a record was written.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Nonce(pub [u8; 16]);

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// A record with its version.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Current {
    /// What is stored.
    pub record: Record,
    /// Its version.
    pub version: Version,
    /// The swap that stored it.
    pub writer: Nonce,
}

impl From<Current> for Versioned {
    fn from(current: Current) -> Self {
        Self { version: current.version, record: current.record }
    }
}

/// A proposed change: `new` in the place of the record whose version is `expected`.
///
/// It can be repeated any number of times, at several servers at once: it takes effect once at
/// most, and every answer says whether it did.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Swap {
    /// The version that is replaced; [`Version::NONE`]: there is no record yet.
    pub expected: Version,
    /// The new record.
    pub new: Record,
    /// Names this swap in the record.
    pub nonce: Nonce,
}

impl Swap {
    /// A swap with a new nonce.
    ///
    /// # Errors
    /// If the host has no random bytes.
    pub fn new(expected: Version, new: Record) -> io::Result<Self> {
        Ok(Self { expected, new, nonce: Nonce(random()?) })
    }

    /// The set whose record changes.
    #[must_use]
    pub fn set(&self) -> SetId {
        self.new.set
    }

    /// The answer when the stored record turns out to be `current`: a record with this swap's nonce
    /// was stored by this swap.
    #[must_use]
    pub(crate) fn outcome(&self, current: Option<Current>) -> Outcome {
        match current {
            Some(current) if current.writer == self.nonce => Outcome::Won(current.version),
            other => Outcome::Lost(other),
        }
    }
}

/// The answer to a swap.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Outcome {
    /// The new record is stored, durably, with this version.
    Won(Version),
    /// Another record is stored, or none (the set was removed). The swap will not take effect
    /// later. It may have done so before another member replaced its record.
    Lost(Option<Current>),
}

/// Random bytes of the kernel.
pub(crate) fn random() -> io::Result<[u8; 16]> {
    let mut bytes = [0; 16];
    // A system call, as the process of a VM opens no file.
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes)
}
