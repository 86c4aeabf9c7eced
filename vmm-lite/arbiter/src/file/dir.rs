//! A set's directory, and the files in it.

use super::{content, lock};
use crate::{
    error::Error,
    record::{MemberId, SetId, Version},
    swap::Current,
};
use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

/// The name of a version's file ends with it.
const RECORD: &str = ".record";
/// And that of a file which has no version yet.
const NEW: &str = ".new";
/// How long a removed set is remembered, so that a change that was under way cannot revive it.
const REMEMBERED: Duration = Duration::from_secs(24 * 3600);

/// A set's directory, locked.
pub struct SetDir {
    set: SetId,
    path: PathBuf,
    dir: File,
    /// Of the arbiter's directory, for what is made in it.
    mode: u32,
    _lock: File,
}

/// A set's path in the arbiter's directory.
pub fn path(all: &Path, set: SetId) -> PathBuf {
    all.join(set.to_string())
}

/// The file that a member locks to show that it runs.
pub fn presence(all: &Path, set: SetId, member: MemberId) -> PathBuf {
    path(all, set).join(format!("{member}.present"))
}

/// Makes the set's directory if needed. Returns the mode for files in it: what the arbiter's
/// directory allows to users, since those of other members must be able to write.
pub fn make(all: &Path, set: SetId) -> io::Result<u32> {
    let open = |path: &Path| {
        let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW;
        OpenOptions::new().read(true).custom_flags(flags).open(path)
    };
    let dir = OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(all)?;
    let mode = dir.metadata()?.permissions().mode();
    match fs::DirBuilder::new().mode(0o700).create(path(all, set)) {
        Ok(()) => {
            open(&path(all, set))?.set_permissions(Permissions::from_mode(mode & 0o7777))?;
            dir.sync_all()?;
        }
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
        Err(e) => return Err(e),
    }
    Ok(mode & 0o666)
}

impl SetDir {
    /// Waits for the lock of a set.
    pub fn lock(all: &Path, set: SetId) -> io::Result<Self> {
        let mode = make(all, set)?;
        let path = path(all, set);
        let dir = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW)
            .open(&path)?;
        let lock = lock::open(&path.join("lock"), mode)?;
        lock::wait(&lock)?;
        Ok(Self { set, path, dir, mode, _lock: lock })
    }

    /// The newest version, and its record unless that was removed. It is durable: its writer may
    /// have been killed before it synced the directory, and what others conclude from the record
    /// must not be undone by a power cut.
    pub fn newest(&self) -> Result<(Version, Option<Current>), Error> {
        let failed = |e: io::Error| super::refused("read a record in", &self.path, &e);
        self.dir.sync_all().map_err(failed)?;
        // A member that has lost its lock, as NFS allows, may replace the record meanwhile.
        for _ in 0..10 {
            let Some(version) =
                self.versions().map_err(failed)?.into_iter().max_by_key(|version| version.0)
            else {
                return Ok((Version::NONE, None));
            };
            match self.content(version) {
                Ok(content) => {
                    return Ok((version, content::read(self.set, version, &content)?));
                }
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(failed(e)),
            }
        }
        Err(Error::Unreachable("other members change the record all the time".into()))
    }

    fn versions(&self) -> io::Result<Vec<Version>> {
        let mut versions = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|name| name.strip_suffix(RECORD));
            let number: Option<u64> = number.and_then(|number| number.parse().ok());
            let version = number.map(Version);
            versions.extend(version.filter(|version| *name == *record(*version)));
        }
        Ok(versions)
    }

    fn content(&self, version: Version) -> io::Result<Vec<u8>> {
        let mut options = OpenOptions::new();
        let options = options.read(true).custom_flags(libc::O_NOFOLLOW);
        let mut content = Vec::new();
        options
            .open(self.path.join(record(version)))?
            .take(content::FILE_MAX as u64 + 1)
            .read_to_end(&mut content)?;
        Ok(content)
    }

    /// Writes what the next version is to be, under a name that nobody else uses.
    pub fn prepare(&self, name: &str, content: &[u8]) -> io::Result<PathBuf> {
        let path = self.path.join(format!("{name}{NEW}"));
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            // The same change was tried before, by a process that was killed.
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        file.set_permissions(Permissions::from_mode(self.mode))?;
        file.write_all(content)?;
        file.sync_all()?;
        Ok(path)
    }

    /// Makes a prepared file this version, unless there is one already. This is the one step that
    /// decides, and it does not depend on the lock: `link` never replaces a file.
    pub fn publish(&self, prepared: &Path, version: Version) -> io::Result<()> {
        match fs::hard_link(prepared, self.path.join(record(version))) {
            // Another member's; or this one's, when NFS has repeated the call.
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
            _ => {}
        }
        self.dir.sync_all()
    }

    /// Removes what the newest version, `version`, has made meaningless. It is removed later if
    /// that fails.
    pub fn prune(&self, version: Version) {
        for entry in fs::read_dir(&self.path).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let old = name
                .strip_suffix(RECORD)
                .and_then(|number| number.parse().ok())
                .is_some_and(|number: u64| number < version.0);
            if old || name.ends_with(NEW) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

/// Removes the directories of sets that were removed long ago, by the storage's clock.
pub fn forget_old(all: &Path, just_removed: SetId) {
    let age_of = |path: &Path| fs::symlink_metadata(path).and_then(|m| m.modified());
    let Ok(now) = age_of(&path(all, just_removed)) else { return };
    for entry in fs::read_dir(all).into_iter().flatten().flatten() {
        let Some(set) = entry.file_name().to_str().and_then(crate::entry::from_hex).map(SetId)
        else {
            continue;
        };
        let old = age_of(&entry.path())
            .is_ok_and(|then| now.duration_since(then).is_ok_and(|age| age > REMEMBERED));
        if !old {
            continue;
        }
        // The directory of a set changes with each version, so none has used this one for long.
        let Ok(dir) = SetDir::lock(all, set) else { continue };
        if let Ok((version, None)) = dir.newest()
            && version != Version::NONE
        {
            let _ = fs::remove_dir_all(&dir.path);
        }
    }
}

fn record(version: Version) -> String {
    format!("{:020}{RECORD}", version.0)
}
