//! The arbiter in a directory of a shared POSIX file system.
//!
//! A set has a directory with a file for its newest version. The next version is written to a file
//! of its own, synced, and then linked to its name, which fails if that version exists: so one
//! change of a version wins even if the storage takes a lock away from a host that is cut off, and
//! completes that host's change later. A process that is killed anywhere in between leaves the old
//! version or the new one. There is no clock in any decision.
//!
//! - `dir`: a set's directory and its files
//! - `lock`: locks that end with their process
//! - `content`: a version's file, with a checksum
//! - `intent`: a deadline for a thread that may hang in the storage

mod content;
mod dir;
pub(crate) mod intent;
mod lock;

use crate::{
    entry::Entry,
    error::Error,
    record::{MemberId, SetId, Version},
    swap::{Current, Nonce, Outcome, Swap, random},
};
use dir::SetDir;
use intent::Intent;
use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

/// The arbiter of a directory. All calls block for as long as the storage does.
#[derive(Clone, Debug)]
pub struct FileStore {
    dir: PathBuf,
}

/// Shows that a member's process runs, until it is dropped.
#[derive(Debug)]
pub struct Presence {
    _lock: File,
}

impl FileStore {
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.into() }
    }

    pub fn read(&self, set: SetId, intent: &Intent) -> Result<Option<Current>, Error> {
        if !self.has(set)? {
            return Ok(None);
        }
        Ok(self.lock(set, intent)?.newest()?.1)
    }

    pub fn swap(&self, swap: &Swap, intent: &Intent) -> Result<Outcome, Error> {
        let entry = Entry::of(swap)?;
        let locked = self.lock(swap.set(), intent)?;
        let (newest, current) = locked.newest()?;
        if current.as_ref().map_or(Version::NONE, |current| current.version) != swap.expected {
            return Ok(swap.outcome(current));
        }
        let (_, found) = self.change(&locked, newest, swap.nonce, Some(&entry), intent)?;
        Ok(swap.outcome(found))
    }

    /// Removes the record if its version is `expected`; `Won` is that version.
    pub fn forget(&self, set: SetId, expected: Version, intent: &Intent) -> Result<Outcome, Error> {
        if !self.has(set)? {
            return Ok(Outcome::Lost(None));
        }
        let locked = self.lock(set, intent)?;
        let (newest, current) = locked.newest()?;
        if current.as_ref().is_none_or(|current| current.version != expected) {
            return Ok(Outcome::Lost(current));
        }
        let nonce = random().map_err(|e| refused("take a random name for", &self.dir, &e))?;
        let (version, found) = self.change(&locked, newest, Nonce(nonce), None, intent)?;
        if version.0 != newest.0 + 1 || found.is_some() {
            return Ok(Outcome::Lost(found));
        }
        drop(locked);
        dir::forget_old(&self.dir, set);
        Ok(Outcome::Won(expected))
    }

    /// Tries to make the version after `newest`, and returns the newest one after that.
    fn change(
        &self,
        locked: &SetDir,
        newest: Version,
        nonce: Nonce,
        entry: Option<&Entry>,
        intent: &Intent,
    ) -> Result<(Version, Option<Current>), Error> {
        let next = newest.0.checked_add(1).map(Version);
        let next = next.ok_or_else(|| Error::Damaged("the last version is reached".into()))?;
        let prepared = locked
            .prepare(&nonce.to_string(), &content::write(next, entry))
            .map_err(|e| refused("write a record in", &self.dir, &e))?;
        if !intent.begin() {
            return Err(late());
        }
        // From here on it is unknown how far a failed change got.
        let unknown = |why: String| {
            Error::Unknown(format!("writing to {} failed: {why}", self.dir.display()))
        };
        locked.publish(&prepared, next).map_err(|e| match e.raw_os_error() {
            Some(libc::EPERM | libc::EOPNOTSUPP | libc::EMLINK) => {
                refused("link files in", &self.dir, &e)
            }
            _ => unknown(e.to_string()),
        })?;
        let found = locked.newest().map_err(|e| unknown(e.to_string()))?;
        locked.prune(found.0);
        Ok(found)
    }

    /// Shows other members that this process runs.
    pub fn announce(&self, set: SetId, member: MemberId) -> Result<Presence, Error> {
        let file = dir::presence(&self.dir, set, member);
        let lock = dir::make(&self.dir, set)
            .and_then(|mode| lock::open(&file, mode))
            .map_err(|e| refused("create a file in", &self.dir, &e))?;
        match lock::try_take(&lock) {
            Ok(true) => Ok(Presence { _lock: lock }),
            Ok(false) => {
                Err(Error::Refused(format!("another process is member {member} of set {set}")))
            }
            Err(e) => Err(refused("lock a file in", &self.dir, &e)),
        }
    }

    /// Which of `members` announced themselves and still run.
    pub fn present(&self, set: SetId, members: &[MemberId]) -> Result<Vec<MemberId>, Error> {
        let mut present = Vec::new();
        for member in members {
            let path = dir::presence(&self.dir, set, *member);
            let mut options = OpenOptions::new();
            options.read(true).write(true).custom_flags(libc::O_NOFOLLOW);
            let held = match options.open(path) {
                Ok(file) => lock::is_held(&file),
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
                Err(e) => Err(e),
            };
            if held.map_err(|e| refused("look for members in", &self.dir, &e))? {
                present.push(*member);
            }
        }
        Ok(present)
    }

    /// Whether the set has a directory; reading one that does not exist leaves no trace.
    fn has(&self, set: SetId) -> Result<bool, Error> {
        let failed = |e| refused("open", &self.dir, &e);
        OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECTORY)
            .open(&self.dir)
            .map_err(failed)?;
        dir::path(&self.dir, set).try_exists().map_err(failed)
    }

    fn lock(&self, set: SetId, intent: &Intent) -> Result<SetDir, Error> {
        let locked = SetDir::lock(&self.dir, set);
        let locked = locked.map_err(|e| refused("lock a file in", &self.dir, &e))?;
        // It may have waited long for the lock.
        if intent.is_over() {
            return Err(late());
        }
        Ok(locked)
    }
}

/// What the file system does not allow.
fn refused(doing: &str, dir: &Path, error: &io::Error) -> Error {
    let hint = match error.raw_os_error() {
        Some(libc::ENOENT) => {
            "; is the shared file system mounted? vmm-lite does not create the directory"
        }
        Some(libc::EACCES | libc::EROFS | libc::EPERM) => {
            "; the directory must be writable for the users of all members, and its file system \
             must have hard links"
        }
        Some(libc::ENOLCK | libc::EOPNOTSUPP | libc::EINVAL) => {
            "; the file system must have locks (NFS: version 4, without `nolock`) and hard links"
        }
        _ => "",
    };
    Error::Refused(format!("cannot {doing} {}: {error}{hint}", dir.display()))
}

/// Nothing was changed, and the deadline is over.
fn late() -> Error {
    Error::Unreachable("the storage, or another member with the lock, took too long".into())
}
