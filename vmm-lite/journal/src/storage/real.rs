//! The host's file system.

use super::{Directory, Lock, Stored};
use crate::format::names;
use nix::{
    errno::Errno,
    fcntl::{FallocateFlags, FcntlArg, fallocate, fcntl},
};
use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// A directory of the host's file system.
#[derive(Debug)]
pub struct RealDirectory {
    path: PathBuf,
    /// For syncs.
    handle: File,
}

impl RealDirectory {
    /// Opens the directory at `path`.
    ///
    /// # Errors
    /// The host's error.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = libc::O_DIRECTORY | libc::O_CLOEXEC;
        let handle = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
        Ok(Self { path: path.into(), handle })
    }

    /// Opens the directory at `path`, and makes it, for this user only, if it does not exist.
    ///
    /// # Errors
    /// The host's error.
    pub fn open_or_make(path: &Path) -> io::Result<Self> {
        match fs::DirBuilder::new().mode(0o700).create(path) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            other => other?,
        }
        // Its name may be new: it has to be durable before anything in it counts.
        let parent = path.canonicalize()?;
        if let Some(parent) = parent.parent() {
            File::open(parent)?.sync_all()?;
        }
        Self::open(path)
    }
}

impl Directory for RealDirectory {
    fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let name = |e: io::Result<fs::DirEntry>| Ok(e?.file_name().to_string_lossy().into_owned());
        fs::read_dir(&self.path)?.map(name).collect()
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn Stored>> {
        Ok(Box::new(files::open_here(&self.path(name))?))
    }

    fn open_to_write(&self, name: &str) -> io::Result<Box<dyn Stored>> {
        Ok(Box::new(files::open_here_to_write(&self.path(name))?))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn Stored>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        Ok(Box::new(options.custom_flags(libc::O_CLOEXEC).open(self.path(name))?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        files::may_replace(&self.path(to))?;
        fs::rename(self.path(from), self.path(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path(name))
    }

    fn sync(&self) -> io::Result<()> {
        self.handle.sync_all()
    }

    fn lock(&self) -> io::Result<Option<Box<dyn Lock>>> {
        let file = files::open_lock(&self.path(names::LOCK))?;
        let whole = libc::flock {
            l_type: libc::F_WRLCK as i16,
            l_whence: libc::SEEK_SET as i16,
            l_start: 0,
            l_len: 0,
            l_pid: 0,
        };
        // Of the open file, not of the process: other threads cannot lose it by a close, and NFS
        // knows it too.
        match fcntl(&file, FcntlArg::F_OFD_SETLK(&whole)) {
            Ok(_) => Ok(Some(Box::new(Held { _file: file }))),
            Err(Errno::EAGAIN | Errno::EACCES) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }
}

/// A locked file.
struct Held {
    _file: File,
}

impl Lock for Held {}

impl Stored for File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, mut to: &mut [u8], mut offset: u64) -> io::Result<usize> {
        let wanted = to.len();
        while !to.is_empty() {
            match FileExt::read_at(self, to, offset) {
                Ok(0) => break,
                Ok(n) => {
                    to = &mut to[n..];
                    offset += n as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(wanted - to.len())
    }

    fn write_at(&self, from: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(from, offset)
    }

    fn allocate(&self, size: u64) -> io::Result<()> {
        if size <= Stored::size(self)? {
            return Ok(());
        }
        loop {
            match fallocate(self, FallocateFlags::empty(), 0, size as i64) {
                Err(Errno::EINTR) => {}
                Ok(()) | Err(Errno::EOPNOTSUPP) => return Ok(()),
                Err(e) => return Err(e.into()),
            }
        }
    }

    fn truncate(&self, size: u64) -> io::Result<()> {
        self.set_len(size)
    }

    fn sync(&self) -> io::Result<()> {
        // The times of the file do not matter; its size does, and is written by this too.
        self.sync_data()
    }
}
