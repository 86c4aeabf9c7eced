//! The arbiter as the state machines see it: one record a replica set, changed by compare-and-swap
//! only.
//!
//! The arbiter is an engine that exists (etcd), or a file on shared storage. Its driver carries out
//! [`Request`]s one at a time and reports the [`Answer`]. Every change of a record advances the
//! term by one, so a record is known by its set and its term, and no two members ever are active in
//! the same term.

use std::fmt::{self, Debug, Display, Formatter};

use serde::{Deserialize, Serialize};

/// Most standbys of a set.
pub const STANDBYS_MAX: usize = 7;

/// Identifies a replica set: 128 random bits that the primary draws when the VM is protected.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SetId(pub [u8; 16]);

/// Identifies one process of a replica set: 128 random bits that it draws when it starts. A host
/// that comes back comes back with another one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MemberId(pub [u8; 16]);

/// Counts the changes of a set's record; the first record has term 1.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
pub struct Term(pub u64);

/// Names a state of a record at the arbiter, such as etcd's `mod_revision`. It differs from every
/// version that the record had before; nothing else is known of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Version(pub u64);

impl Version {
    /// There is no record.
    pub const NONE: Self = Self(0);
}

/// Who may run the VM of a set, and who may take it over.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Record {
    /// The set.
    pub set: SetId,
    /// Advances by one with every change.
    pub term: Term,
    /// The member that runs the VM and releases its output.
    pub active: MemberId,
    /// The standbys that are in sync, without the active member; each may take over. At most
    /// [`STANDBYS_MAX`], sorted, none twice.
    pub in_sync: Vec<MemberId>,
}

/// Why a record from an arbiter was not accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the arbiter's record is invalid ({0}): remove it, and protect the VM again")]
pub struct InvalidRecord(pub &'static str);

impl Record {
    /// Checks what an arbiter or a peer has sent.
    ///
    /// # Errors
    /// The part that is wrong.
    pub fn check(&self) -> Result<(), InvalidRecord> {
        if self.term == Term(0) {
            return Err(InvalidRecord("term 0"));
        }
        if self.term.0 == u64::MAX {
            return Err(InvalidRecord("the last term there is"));
        }
        if self.in_sync.len() > STANDBYS_MAX {
            return Err(InvalidRecord("too many standbys"));
        }
        if !self.in_sync.is_sorted_by(|a, b| a < b) {
            return Err(InvalidRecord("standbys out of order, or one twice"));
        }
        if self.in_sync.contains(&self.active) {
            return Err(InvalidRecord("the active member as its own standby"));
        }
        Ok(())
    }

    /// Whether the member may take over: it is in sync, or the record hands the VM to it.
    #[must_use]
    pub fn names(&self, member: MemberId) -> bool {
        self.active == member || self.in_sync.contains(&member)
    }

    /// The record that follows this one.
    #[must_use]
    pub fn next(&self, active: MemberId, in_sync: impl IntoIterator<Item = MemberId>) -> Self {
        let mut in_sync: Vec<_> = in_sync.into_iter().collect();
        in_sync.sort_unstable();
        Self { set: self.set, term: self.term.next(), active, in_sync }
    }
}

/// A record and its version.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Versioned {
    /// The version.
    pub version: Version,
    /// The record.
    pub record: Record,
}

/// What a state machine asks of the arbiter. It has at most one request open.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Request {
    /// Read the set's record, with no answer from a cache or a lagging replica.
    Read(SetId),
    /// Put `new` in place of the record of that version, or create it if that is
    /// [`Version::NONE`].
    CompareAndSwap {
        /// The version that must be there.
        expected: Version,
        /// The new record.
        new: Record,
    },
}

/// What came of it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Answer {
    /// The record that [`Request::Read`] found; `None`: the set has none.
    Found(Option<Versioned>),
    /// [`Request::CompareAndSwap`] has put the new record in place, durably. Its version.
    Swapped(Version),
    /// Another record was there, or none; nothing was changed. Also possible where the request was
    /// repeated by a client library and its first try succeeded: the machines compare records.
    Conflict(Option<Versioned>),
    /// No answer in time, or an error. A swap may have happened, or may still happen.
    Unreachable(String),
}

impl Term {
    /// The term after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl Display for Term {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        Display::fmt(&self.0, f)
    }
}

fn hex(bytes: &[u8; 16], f: &mut Formatter<'_>) -> fmt::Result {
    write!(f, "{:032x}", u128::from_be_bytes(*bytes))
}

impl Display for SetId {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

impl Display for MemberId {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

impl Debug for SetId {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "SetId({self})")
    }
}

impl Debug for MemberId {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "MemberId({self})")
    }
}
