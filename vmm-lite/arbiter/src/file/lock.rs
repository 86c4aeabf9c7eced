//! Locks of open file descriptions (`F_OFD_SETLK`).
//!
//! The kernel releases such a lock when the last descriptor is closed, also by SIGKILL, and no
//! other descriptor of the same process can release it by accident. NFS 4 and most cluster file
//! systems pass them on between hosts.

use nix::fcntl::{FcntlArg, fcntl};
use std::{
    fs::{File, OpenOptions, Permissions},
    io,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

/// The whole file.
fn whole(kind: libc::c_int) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

/// Opens a lock's file, and makes it first, with `mode`, if needed.
pub fn open(path: &Path, mode: u32) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true).custom_flags(libc::O_NOFOLLOW);
    match options.clone().create_new(true).mode(0o600).open(path) {
        Ok(file) => {
            file.set_permissions(Permissions::from_mode(mode))?;
            Ok(file)
        }
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => options.open(path),
        Err(e) => Err(e),
    }
}

/// Waits for the only lock on `file`, which lasts until `file` is dropped.
pub fn wait(file: &File) -> io::Result<()> {
    loop {
        match fcntl(file, FcntlArg::F_OFD_SETLKW(&whole(libc::F_WRLCK))) {
            Err(nix::Error::EINTR) => {}
            locked => return Ok(locked.map(drop)?),
        }
    }
}

/// Takes the lock if it is free.
pub fn try_take(file: &File) -> io::Result<bool> {
    match fcntl(file, FcntlArg::F_OFD_SETLK(&whole(libc::F_WRLCK))) {
        Ok(_) => Ok(true),
        Err(nix::Error::EAGAIN | nix::Error::EACCES) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// Whether somebody else has the lock.
pub fn is_held(file: &File) -> io::Result<bool> {
    let mut lock = whole(libc::F_WRLCK);
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut lock))?;
    Ok(lock.l_type != libc::F_UNLCK as libc::c_short)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_held_until_its_file_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let (one, other) = (open(&path, 0o600).unwrap(), open(&path, 0o600).unwrap());
        assert!(!is_held(&other).unwrap());
        wait(&one).unwrap();
        assert!(is_held(&other).unwrap());
        assert!(!try_take(&other).unwrap());
        // Another descriptor of the same file in this process does not release it.
        drop(open(&path, 0o600).unwrap());
        assert!(is_held(&other).unwrap());
        drop(one);
        assert!(try_take(&other).unwrap());
    }
}
