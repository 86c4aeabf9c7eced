//! Files that appear under their name whole or not at all.
//!
//! Until it is published such a file has no name, so that a crash of this process or the host
//! leaves nothing behind. Only for the instant in which it replaces another file it has a name that
//! begins with a dot; if a process dies in that instant, the next one that writes there removes the
//! file. Where the file system cannot make files without a name, it has such a name from the
//! beginning.

use std::{
    ffi::{CString, OsStr, OsString},
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::AsRawFd,
        unix::{
            ffi::OsStrExt,
            fs::{MetadataExt, OpenOptionsExt},
        },
    },
    path::{Path, PathBuf},
};

/// Suffix of files' names while they replace another.
const NEW: &str = ".vmm-lite-new";

/// A file that does not have its name yet.
#[derive(Debug)]
pub struct NewFile {
    file: File,
    path: PathBuf,
    /// A temporary name; the file is removed with it unless it is published.
    named: Option<tempfile::TempPath>,
}

impl NewFile {
    /// Begins a file for `path`, readable by this user only.
    ///
    /// # Errors
    /// When the directory does not exist or cannot be written to, or `path` cannot be a file's.
    pub fn at(path: &Path) -> io::Result<Self> {
        if path.file_name().is_none() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        files::may_replace(path)?;
        let directory = directory(path);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .mode(0o600)
            .custom_flags(libc::O_TMPFILE)
            .open(directory);
        match file {
            Ok(file) => Ok(Self { file, path: path.into(), named: None }),
            Err(e) if matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR)) => {
                let made = tempfile::Builder::new().prefix(&dotted(path)).tempfile_in(directory)?;
                let (file, named) = made.into_parts();
                Ok(Self { file, path: path.into(), named: Some(named) })
            }
            Err(e) => Err(e),
        }
    }

    /// The file to write to.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Syncs everything to the disk, and then puts the file at its path, in place of what was
    /// there.
    ///
    /// # Errors
    /// The disk's error. The file that was at the path before is still there.
    pub fn publish(mut self) -> io::Result<()> {
        fail_point!("snapshot.copied");
        self.file.sync_all()?;
        fail_point!("snapshot.synced");
        match self.named.take() {
            Some(named) => {
                files::may_replace(&self.path)?;
                named.persist(&self.path).map_err(|e| e.error)?;
            }
            None => self.link()?,
        }
        File::open(directory(&self.path))?.sync_all()
    }

    /// Gives the file its name. One that is taken can only be replaced through another.
    fn link(&self) -> io::Result<()> {
        match self.link_as(&self.path) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            other => return other,
        }
        // Held until the file has its name, or this process ends.
        self.file.lock()?;
        remove_left_over(&self.path)?;
        let other = self.path.with_file_name(other_name(&self.path, self.file.metadata()?.ino()));
        self.link_as(&other)?;
        fail_point!("snapshot.other-name");
        // The file there may have changed while this one was written.
        let replaced = files::may_replace(&self.path).and_then(|()| fs::rename(&other, &self.path));
        replaced.inspect_err(|_| {
            // Nothing more can be done.
            let _ = fs::remove_file(&other);
        })
    }

    fn link_as(&self, path: &Path) -> io::Result<()> {
        let from = CString::new(format!("/proc/self/fd/{}", self.file.as_raw_fd()))?;
        let to = CString::new(path.as_os_str().as_bytes())?;
        let (here, follow) = (libc::AT_FDCWD, libc::AT_SYMLINK_FOLLOW);
        // SAFETY: two NUL-terminated paths.
        match unsafe { libc::linkat(here, from.as_ptr(), here, to.as_ptr(), follow) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Removes files of processes that died while they replaced the file at `path`. Running processes
/// hold theirs locked. A file is removed only where its name contains its own inode number, which
/// is not true of a copy, nor of any file that a user has made.
fn remove_left_over(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory(path))? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(inode) = inode_in(&name, path) else { continue };
        // A file that cannot be opened or locked is in use; one that does not exist has its name,
        // or was removed.
        let Ok(file) = files::open_here(&entry.path()) else { continue };
        let own = file.metadata().is_ok_and(|found| {
            found.ino() == inode
                && found.nlink() == 1
                && found.uid() == nix::unistd::geteuid().as_raw()
        });
        if own && file.try_lock().is_ok() {
            let _ = fs::remove_file(entry.path());
        }
    }
    Ok(())
}

/// The name of the file with the number `inode` for the instant in which it replaces the one at
/// `path`.
fn other_name(path: &Path, inode: u64) -> OsString {
    let mut name = dotted(path);
    name.push(format!("{inode}{NEW}"));
    name
}

/// The number in a name like those of [`other_name`].
fn inode_in(name: &OsStr, path: &Path) -> Option<u64> {
    let rest = name.as_bytes().strip_prefix(dotted(path).as_bytes())?;
    str::from_utf8(rest.strip_suffix(NEW.as_bytes())?).ok()?.parse().ok()
}

fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(directory) if directory != Path::new("") => directory,
        _ => Path::new("."),
    }
}

fn dotted(path: &Path) -> OsString {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".");
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kv.snap");
        let count = || fs::read_dir(dir.path()).unwrap().count();
        let new = NewFile::at(&path).unwrap();
        new.file().write_all(b"first").unwrap();
        drop(new);
        assert_eq!(count(), 0, "nothing is left of one that was given up");
        for content in ["second", "third"] {
            let new = NewFile::at(&path).unwrap();
            new.file().write_all(content.as_bytes()).unwrap();
            new.publish().unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
            assert_eq!(count(), 1);
        }
        assert!(NewFile::at(dir.path()).is_err(), "a directory");
        assert!(NewFile::at(&dir.path().join("none/kv.snap")).is_err());
    }

    /// Renames `file` to the name that it has while it replaces `path`.
    fn leave(file: &Path, path: &Path) -> PathBuf {
        let name = other_name(path, fs::symlink_metadata(file).unwrap().ino());
        let to = path.with_file_name(name);
        fs::rename(file, &to).unwrap();
        to
    }

    #[test]
    fn only_left_over_files_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kv.snap");
        let make = |name: &str| {
            let path = dir.path().join(name);
            File::create(&path).unwrap();
            path
        };
        make("kv.snap");
        let left = leave(&make("left"), &path);
        let in_use = leave(&make("in-use"), &path);
        let locked = File::open(&in_use).unwrap();
        locked.lock().unwrap();
        let linked = leave(&make("linked"), &path);
        fs::hard_link(&linked, dir.path().join("kept")).unwrap();
        let users =
            [".kv.snap.1.0", ".kv.snap.bak", ".kv.snap.7.vmm-lite-new", ".kv.snap.x.vmm-lite-new"];
        let users = users.map(make);
        // Files that block on open, have side effects, or are elsewhere.
        let mut odd = Vec::new();
        for (path_of, _) in vmm_lite_lab::files::odd_paths(dir.path()) {
            odd.push(leave(&path_of, &path));
        }
        vmm_lite_lab::files::at_once(move || NewFile::at(&path).unwrap().publish().unwrap());
        assert!(!left.exists(), "files of a dead process are removed");
        let stay = users.iter().chain(&odd).chain([&in_use, &linked]);
        for path in stay {
            assert!(fs::symlink_metadata(path).is_ok(), "{} is gone", path.display());
        }
    }

    #[test]
    fn only_regular_files_are_replaced() {
        let dir = tempfile::tempdir().unwrap();
        for (path, _) in vmm_lite_lab::files::odd_paths(dir.path()) {
            let before = fs::symlink_metadata(&path).unwrap().ino();
            let wrong = vmm_lite_lab::files::at_once({
                let path = path.clone();
                move || NewFile::at(&path).is_err()
            });
            assert!(wrong, "{}", path.display());
            assert_eq!(fs::symlink_metadata(&path).unwrap().ino(), before);
        }
        // A file that was put there while this one was written stays too.
        let path = dir.path().join("late");
        let new = NewFile::at(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(new.publish().is_err());
        assert!(path.is_dir());
    }
}
