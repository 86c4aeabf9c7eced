//! What can go wrong with a journal.

use std::{io, path::PathBuf, sync::Arc};

/// An error of a journal. It names the file, so that a user knows where to look.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The host refused an operation.
    #[error("cannot {doing} {file}: {source}")]
    Io {
        /// What was tried, as a verb: "read", "sync".
        doing: &'static str,
        /// The file's path.
        file: String,
        /// The host's error.
        source: Arc<io::Error>,
    },
    /// There is no journal in the directory.
    #[error("{} is not a journal: it has no file `journal`", .0.display())]
    NotAJournal(PathBuf),
    /// A new journal needs an empty directory.
    #[error("{} is not empty (it has `{found}`): name another directory", .dir.display())]
    NotEmpty {
        /// The directory.
        dir: PathBuf,
        /// A file in it.
        found: String,
    },
    /// Another process, or another writer of this one, writes to the journal.
    #[error("{} is being written by another process: end that one first", .0.display())]
    Locked(PathBuf),
    /// A file has a format that this version does not read.
    #[error(
        "{file} has format version {found}; this program reads version {known}: use a newer one"
    )]
    Version {
        /// The file's path.
        file: String,
        /// Its major version.
        found: u16,
        /// The version that is read.
        known: u16,
    },
    /// Content of a file is not what was written, or files are missing.
    #[error("{file} is damaged at offset {offset}{}: {what}", at_position(.position))]
    Damaged {
        /// The file's path.
        file: String,
        /// Where, in bytes from the start of the file.
        offset: u64,
        /// The first record that cannot be read, where that is known.
        position: Option<u64>,
        /// What is wrong.
        what: String,
    },
    /// The records that were asked for are not in the journal.
    #[error("record {asked} is not in the journal, which has records {first} to {last}")]
    NotThere {
        /// The position asked for.
        asked: u64,
        /// The first record in the journal.
        first: u64,
        /// The last one; one less than `first` if there is none.
        last: u64,
    },
    /// A record does not follow the one before it.
    #[error("record {got} was appended where record {expected} is next")]
    OutOfOrder {
        /// The position that is next.
        expected: u64,
        /// The position that was given.
        got: u64,
    },
    /// A value is longer than the format allows.
    #[error("{what} has {length} bytes; the journal takes at most {most}")]
    TooLong {
        /// What it is.
        what: &'static str,
        /// Its length in bytes.
        length: usize,
        /// The most that is allowed.
        most: usize,
    },
    /// A snapshot cannot be registered at that position.
    #[error("a snapshot at {position} does not fit the journal, which has records up to {last}")]
    NoSuchPoint {
        /// The snapshot's position.
        position: u64,
        /// The last record.
        last: u64,
    },
    /// The writer has been closed.
    #[error("the journal is closed")]
    Closed,
}

fn at_position(position: &Option<u64>) -> String {
    position.map(|p| format!(" (record {p})")).unwrap_or_default()
}

impl Error {
    pub(crate) fn io(
        doing: &'static str,
        file: impl Into<String>,
    ) -> impl FnOnce(io::Error) -> Self {
        let file = file.into();
        move |source| Self::Io { doing, file, source: Arc::new(source) }
    }

    pub(crate) fn damaged(
        file: impl Into<String>,
        offset: u64,
        position: Option<u64>,
        what: impl Into<String>,
    ) -> Self {
        Self::Damaged { file: file.into(), offset, position, what: what.into() }
    }

    /// Whether the disk or the quota was full.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let Self::Io { source, .. } = self else { return false };
        matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }
}
