//! Files that appear under their name whole or not at all.
//!
//! Until it is published such a file has no name, so that whatever happens to this process or to the host, nothing is left behind. Only for the instant in which it
//! takes another's place it has one that begins with a dot; what is left of a process that died in that instant is removed by the next that writes there. Where the file system
//! cannot make files without a name, it has such a name from the beginning.

use std::{
    ffi::{CString, OsString},
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::AsRawFd,
        unix::{ffi::OsStrExt, fs::OpenOptionsExt},
    },
    path::{Path, PathBuf},
};

/// A file that does not have its name yet.
#[derive(Debug)]
pub struct NewFile {
    file: File,
    path: PathBuf,
    /// A name that has to do meanwhile; the file goes with it unless it is published.
    named: Option<tempfile::TempPath>,
}

impl NewFile {
    /// Begins a file that will be at `path`, readable by this user only.
    ///
    /// # Errors
    /// When the directory is not there or cannot be written to, or `path` cannot be a file's.
    pub fn at(path: &Path) -> io::Result<Self> {
        if path.file_name().is_none() || path.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
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

    /// To be written to.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Has everything on the disk, and then the file at its path, in place of what was there.
    ///
    /// # Errors
    /// What the disk says. What was at the path before is there still.
    pub fn publish(mut self) -> io::Result<()> {
        fail_point!("snapshot.copied");
        self.file.sync_all()?;
        fail_point!("snapshot.synced");
        match self.named.take() {
            Some(named) => named.persist(&self.path).map_err(|e| e.error)?,
            None => self.link()?,
        }
        File::open(directory(&self.path))?.sync_all()
    }

    /// Gives the file its name. One that is taken can only be had by way of another.
    fn link(&self) -> io::Result<()> {
        match self.link_as(&self.path) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            other => return other,
        }
        // Held until the file has its name, or this process is dead.
        self.file.lock()?;
        remove_left(&self.path)?;
        for attempt in 0_u32.. {
            let mut name = dotted(&self.path);
            name.push(format!("{}.{attempt}", std::process::id()));
            let other = self.path.with_file_name(name);
            match self.link_as(&other) {
                Ok(()) => {
                    fail_point!("snapshot.other-name");
                    return fs::rename(&other, &self.path).inspect_err(|_| {
                        // Nothing more can be done about it.
                        let _ = fs::remove_file(&other);
                    });
                }
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(e),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
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

/// Removes what others left that died while their file took the place of that at `path`: those that live hold theirs locked.
fn remove_left(path: &Path) -> io::Result<()> {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    for entry in fs::read_dir(directory(path))? {
        let entry = entry?;
        let name = entry.file_name();
        let rest = name.as_bytes().strip_prefix(dotted(path).as_bytes());
        let rest = rest.and_then(|rest| str::from_utf8(rest).ok()?.split_once('.'));
        if !rest.is_some_and(|(pid, attempt)| number(pid) && number(attempt)) {
            continue;
        }
        // One that cannot be opened or locked is somebody's; one that is gone has its name, or was removed.
        let left = File::open(entry.path()).is_ok_and(|file| file.try_lock().is_ok());
        if left {
            let _ = fs::remove_file(entry.path());
        }
    }
    Ok(())
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
    fn a_file_is_there_whole_or_not_at_all() {
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
        // What another left that died at the worst instant goes; what one that lives is about to publish does not.
        let [left, living, other] =
            [".kv.snap.1.0", ".kv.snap.1.1", ".kv.snap.bak"].map(|name| dir.path().join(name));
        let files = [&left, &living, &other].map(|path| File::create(path).unwrap());
        files[1].lock().unwrap();
        NewFile::at(&path).unwrap().publish().unwrap();
        assert!(!left.exists() && living.exists() && other.exists());
        drop(files);
        assert!(NewFile::at(dir.path()).is_err(), "a directory");
        assert!(NewFile::at(&dir.path().join("none/kv.snap")).is_err());
    }
}
