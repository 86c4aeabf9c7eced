//! Opens paths at which there may be something other than a regular file.
//!
//! A FIFO blocks its opener until the other end is opened, opening a device may have any effect,
//! and a rename can put either in the place of a file. Every path that vmm-lite finds by a pattern,
//! or that a user names for a file, is opened or replaced by these functions, which never block.

use std::{
    fs::{self, File, FileType, OpenOptions},
    io,
    os::unix::fs::{FileTypeExt, OpenOptionsExt},
    path::Path,
};

/// Opens a regular file for reading. Symbolic links are followed.
///
/// # Errors
/// The host's error, and [`InvalidInput`](io::ErrorKind::InvalidInput) for anything but a regular
/// file.
pub fn open(path: &Path) -> io::Result<File> {
    // Before it is opened: opening a device is an action. And again afterwards: it may be another
    // file by then.
    must_be_file(fs::metadata(path)?.file_type())?;
    open_with(OpenOptions::new().read(true), 0, path)
}

/// Opens a regular file for reading, unless `path` is a symbolic link.
///
/// # Errors
/// As [`open`].
pub fn open_here(path: &Path) -> io::Result<File> {
    must_be_file(fs::symlink_metadata(path)?.file_type())?;
    open_with(OpenOptions::new().read(true), libc::O_NOFOLLOW, path)
}

/// Opens a regular file for reading and writing, unless `path` is a symbolic link.
///
/// # Errors
/// As [`open`].
pub fn open_here_to_write(path: &Path) -> io::Result<File> {
    must_be_file(fs::symlink_metadata(path)?.file_type())?;
    open_with(OpenOptions::new().read(true).write(true), libc::O_NOFOLLOW, path)
}

/// Opens the lock file at `path`, and creates it if need be, for this user only.
///
/// # Errors
/// As [`open`].
pub fn open_lock(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    open_with(&mut options, libc::O_NOFOLLOW, path)
}

/// Checks that a new file may replace what is at `path`: nothing, or a regular file.
///
/// # Errors
/// The host's error, and [`InvalidInput`](io::ErrorKind::InvalidInput) for anything else.
pub fn may_replace(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) => must_be_file(found.file_type()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
    }
}

fn open_with(options: &mut OpenOptions, flags: i32, path: &Path) -> io::Result<File> {
    // O_NONBLOCK has no effect on regular files.
    let flags = flags | libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC;
    let file = options.custom_flags(flags).open(path)?;
    must_be_file(file.metadata()?.file_type())?;
    Ok(file)
}

fn must_be_file(found: FileType) -> io::Result<()> {
    let kind = match found {
        _ if found.is_file() => return Ok(()),
        _ if found.is_dir() => "a directory",
        _ if found.is_symlink() => "a symbolic link (name what it points to)",
        _ if found.is_fifo() => "a FIFO",
        _ if found.is_socket() => "a socket",
        _ => "a device",
    };
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("it is {kind}, not a regular file")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use vmm_lite_lab::files::{at_once, odd_paths};

    #[test]
    fn only_regular_files_are_opened_or_replaced() {
        let dir = tempfile::tempdir().unwrap();
        for (path, kind) in odd_paths(dir.path()) {
            let (error, here, lock, replace) = at_once({
                let path = path.clone();
                let error = |e: io::Error| e.to_string();
                move || {
                    (
                        open(&path).map(drop).map_err(error),
                        open_here(&path).is_ok() || open_here_to_write(&path).is_ok(),
                        open_lock(&path).is_ok(),
                        may_replace(&path).is_ok(),
                    )
                }
            });
            let error = error.unwrap_err();
            assert!(error.contains(kind), "{}: {error}", path.display());
            assert_eq!((here, lock, replace), (false, false, false), "{}", path.display());
        }
        let file = dir.path().join("file");
        open_lock(&file).unwrap();
        open_lock(&file).unwrap();
        symlink(&file, dir.path().join("to-file")).unwrap();
        open(&dir.path().join("to-file")).unwrap();
        open_here(&file).unwrap();
        may_replace(&file).unwrap();
        may_replace(&dir.path().join("none")).unwrap();
        let error = may_replace(&dir.path().join("to-file")).unwrap_err().to_string();
        assert!(error.contains("symbolic link"), "{error}");
    }
}
