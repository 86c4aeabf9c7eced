//! The arbiter in a directory of a shared POSIX file system.
//!
//! A set has a file, `SET.record`, which is only ever replaced as a whole, by the holder of a lock:
//! the new content is written to `SET.new`, synced, renamed, and the directory is synced before the
//! swap counts as won. A process that is killed anywhere in between leaves the old record or the
//! new one. There is no clock in any decision.
//!
//! - `lock`: locks that end with their process
//! - `content`: the record's file, with version and checksum
//! - `intent`: a deadline for a thread that may hang in the storage

mod content;
pub(crate) mod intent;
mod lock;

use crate::{
    entry::Entry,
    error::Error,
    record::{MemberId, SetId, Version},
    swap::{Current, Outcome, Swap, random},
};
use intent::Intent;
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

/// Lock files: sets share them, so that their number is bounded and none is ever removed (a lock on
/// a removed file would exclude nobody).
const LOCKS: u8 = 64;

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
        let locked = self.lock(set, intent)?;
        locked.read()
    }

    pub fn swap(&self, swap: &Swap, intent: &Intent) -> Result<Outcome, Error> {
        let entry = Entry::of(swap)?;
        let locked = self.lock(swap.set(), intent)?;
        let current = locked.read()?;
        if current.as_ref().map_or(Version::NONE, |current| current.version) != swap.expected {
            return Ok(swap.outcome(current));
        }
        let version = match swap.expected {
            Version::NONE => first_version()
                .map_err(|e| self.refused("take a random version for a record in", &e))?,
            Version(last) => Version(last.wrapping_add(1)),
        };
        locked.prepare(&content::write(version, &entry))?;
        if !intent.begin() {
            return Err(late());
        }
        locked.replace()?;
        Ok(Outcome::Won(version))
    }

    /// Removes the record if its version is `expected`; `Won` is that version.
    pub fn forget(&self, set: SetId, expected: Version, intent: &Intent) -> Result<Outcome, Error> {
        let locked = self.lock(set, intent)?;
        let current = locked.read()?;
        if current.as_ref().is_none_or(|current| current.version != expected) {
            return Ok(Outcome::Lost(current));
        }
        if !intent.begin() {
            return Err(late());
        }
        locked.remove()?;
        Ok(Outcome::Won(expected))
    }

    /// Shows other members that this process runs.
    pub fn announce(&self, set: SetId, member: MemberId) -> Result<Presence, Error> {
        let lock = lock::open(&self.presence(set, member))
            .map_err(|e| self.refused("create a file in", &e))?;
        match lock::try_take(&lock) {
            Ok(true) => Ok(Presence { _lock: lock }),
            Ok(false) => {
                Err(Error::Refused(format!("another process is member {member} of set {set}")))
            }
            Err(e) => Err(self.refused("lock a file in", &e)),
        }
    }

    /// Which of `members` announced themselves and still run.
    pub fn present(&self, set: SetId, members: &[MemberId]) -> Result<Vec<MemberId>, Error> {
        let mut present = Vec::new();
        for member in members {
            let held = match OpenOptions::new()
                .read(true)
                .write(true)
                .custom_flags(libc::O_NOFOLLOW)
                .open(self.presence(set, *member))
            {
                Ok(file) => lock::is_held(&file),
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
                Err(e) => Err(e),
            };
            if held.map_err(|e| self.refused("look for members in", &e))? {
                present.push(*member);
            }
        }
        Ok(present)
    }

    fn presence(&self, set: SetId, member: MemberId) -> PathBuf {
        self.path(set, &format!("{member}.present"))
    }

    fn path(&self, set: SetId, what: &str) -> PathBuf {
        self.dir.join(format!("{set}.{what}"))
    }

    fn lock(&self, set: SetId, intent: &Intent) -> Result<Locked<'_>, Error> {
        let failed = |e: io::Error| self.refused("open", &e);
        let dir = OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(&self.dir);
        let dir = dir.map_err(failed)?;
        let lock = self.dir.join(format!("lock-{:02}", set.0[0] % LOCKS));
        let lock = lock::open(&lock).map_err(|e| self.refused("create files in", &e))?;
        lock::wait(&lock).map_err(|e| self.refused("lock a file in", &e))?;
        // It may have waited long for the lock.
        if intent.is_over() {
            return Err(late());
        }
        Ok(Locked { store: self, set, dir, _lock: lock })
    }

    /// What the file system does not allow.
    fn refused(&self, doing: &str, error: &io::Error) -> Error {
        let dir = self.dir.display();
        let hint = match error.raw_os_error() {
            Some(libc::ENOENT) => {
                "; is the shared file system mounted? vmm-lite does not create the directory"
            }
            Some(libc::EACCES | libc::EPERM | libc::EROFS) => {
                "; the directory and its files must be writable for the users of all members"
            }
            Some(libc::ENOLCK | libc::EOPNOTSUPP | libc::EINVAL) => {
                "; the file system has no locks (NFS: version 4, without `nolock`)"
            }
            _ => "",
        };
        Error::Refused(format!("cannot {doing} {dir}: {error}{hint}"))
    }
}

/// A random one, so that no version of an earlier record of the set comes again.
fn first_version() -> io::Result<Version> {
    let [a, b, c, d, e, f, g, h, ..] = random()?;
    Ok(Version((u64::from_le_bytes([a, b, c, d, e, f, g, h]) >> 1).max(1)))
}

/// Nothing was changed, and the deadline is over.
fn late() -> Error {
    Error::Unreachable("the storage, or another member with the lock, took too long".into())
}

/// A set whose lock this process has.
struct Locked<'a> {
    store: &'a FileStore,
    set: SetId,
    dir: File,
    _lock: File,
}

impl Locked<'_> {
    fn record(&self) -> PathBuf {
        self.store.path(self.set, "record")
    }

    fn next(&self) -> PathBuf {
        self.store.path(self.set, "new")
    }

    /// The stored record. It is durable: its writer may have been killed before it synced the
    /// directory, and what others concluded from the record must not be undone by a power cut.
    fn read(&self) -> Result<Option<Current>, Error> {
        self.dir.sync_all().map_err(|e| self.store.refused("sync", &e))?;
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(self.record());
        let mut file = match file {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(self.store.refused("read a record in", &e)),
        };
        let mut content = Vec::new();
        (&mut file)
            .take(content::FILE_MAX as u64 + 1)
            .read_to_end(&mut content)
            .map_err(|e| self.store.refused("read a record in", &e))?;
        content::read(self.set, &content).map(Some)
    }

    /// Writes the next record beside the current one.
    fn prepare(&self, content: &[u8]) -> Result<(), Error> {
        let write = || {
            // What a killed process has left may belong to another user.
            match fs::remove_file(self.next()) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
            let mut file =
                OpenOptions::new().write(true).create_new(true).mode(0o666).open(self.next())?;
            file.write_all(content)?;
            file.sync_all()
        };
        write().map_err(|e| self.store.refused("write a record in", &e))
    }

    /// Makes it the current one.
    fn replace(&self) -> Result<(), Error> {
        self.change(|| fs::rename(self.next(), self.record()))
    }

    fn remove(&self) -> Result<(), Error> {
        self.change(|| fs::remove_file(self.record()))?;
        // What is left is no record; the next swap or `forget` copes with it.
        let prefix = format!("{}.", self.set);
        for entry in fs::read_dir(&self.store.dir).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(&prefix) {
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(())
    }

    /// From here on it is unknown how far a failed change got.
    fn change(&self, change: impl FnOnce() -> io::Result<()>) -> Result<(), Error> {
        change().and_then(|()| self.dir.sync_all()).map_err(|e| {
            Error::Unknown(format!("writing to {} failed: {e}", self.store.dir.display()))
        })
    }
}
