//! Files and directories: the tree that all paths lead into, and what is open in it.

use super::{Errno, Object};
use crate::{
    cpu::KernelCell,
    fs::{self, Ino, Open, Stat, Tree, entries::Writer},
    time,
};
use core::cell::Cell;
use hermit_abi::errno;

/// Permissions that new files and directories never have.
const UMASK: u32 = 0o022;

static TREE: KernelCell<Option<Tree>> = KernelCell::new(None);

/// Calls `f` with all files and the time.
fn with_tree<R>(f: impl FnOnce(&mut Tree, u64) -> Result<R, fs::Error>) -> Result<R, Errno> {
    let now = time::wall_ns();
    Ok(TREE.with(|tree| f(tree.get_or_insert_with(|| Tree::new(now)), now))?)
}

/// What an open file may be used for.
#[derive(Clone, Copy, Debug)]
pub struct Access {
    /// Reading.
    pub read: bool,
    /// Writing.
    pub write: bool,
    /// Each write goes to the end.
    pub append: bool,
}

/// Where a position counts from.
#[derive(Clone, Copy, Debug)]
pub enum Whence {
    /// The start of the file.
    Start,
    /// The position so far.
    Current,
    /// The end of the file.
    End,
}

/// A file or directory that is open.
#[derive(Debug)]
pub struct OpenFile {
    ino: Ino,
    access: Access,
    position: Cell<u64>,
    /// A directory's entries have been read.
    listed: Cell<bool>,
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        // Closing cannot fail.
        let _ = with_tree(|tree, _| {
            tree.close(self.ino);
            Ok(())
        });
    }
}

/// A descriptor for the file or directory at `path`.
///
/// # Errors
/// As on Linux.
pub fn open(path: &[u8], access: Access, how: Open) -> Result<i32, Errno> {
    let how = Open { mode: how.mode & !UMASK, ..how };
    let ino = with_tree(|tree, now| tree.open(path, how, now))?;
    let file = OpenFile { ino, access, position: Cell::new(0), listed: Cell::new(false) };
    super::open(Object::File(file), false)
}

/// Removes a file's name, and the file when nothing has it open.
///
/// # Errors
/// As on Linux.
pub fn unlink(path: &[u8]) -> Result<(), Errno> {
    with_tree(|tree, now| tree.unlink(path, now))
}

/// Makes a directory.
///
/// # Errors
/// As on Linux.
pub fn make_directory(path: &[u8], mode: u32) -> Result<(), Errno> {
    with_tree(|tree, now| tree.make_directory(path, mode & !UMASK, now))
}

/// Removes an empty directory.
///
/// # Errors
/// As on Linux.
pub fn remove_directory(path: &[u8]) -> Result<(), Errno> {
    with_tree(|tree, now| tree.remove_directory(path, now))
}

/// Size, times and so on of the file or directory at `path`.
///
/// # Errors
/// As on Linux.
pub fn stat(path: &[u8]) -> Result<Stat, Errno> {
    with_tree(|tree, _| tree.stat_path(path))
}

impl OpenFile {
    /// What it may be used for.
    pub fn access(&self) -> Access {
        self.access
    }

    /// Its size, times and so on.
    ///
    /// # Errors
    /// None, as it is open.
    pub fn stat(&self) -> Result<Stat, Errno> {
        with_tree(|tree, _| tree.stat(self.ino))
    }

    /// Reads from its position on; returns how many bytes, 0 at the end.
    ///
    /// # Errors
    /// `EBADF`, `EISDIR`.
    pub fn read(&self, to: &mut [u8]) -> Result<usize, Errno> {
        if !self.access.read {
            return Err(Errno(errno::EBADF));
        }
        let at = self.position.get();
        let n = with_tree(|tree, now| tree.read(self.ino, at, to, now))?;
        self.position.set(at + n as u64);
        Ok(n)
    }

    /// Writes at its position, or at the end if it was opened to append; returns how many bytes.
    ///
    /// # Errors
    /// `EBADF`, `ENOSPC`, `EFBIG`.
    pub fn write(&self, from: &[u8]) -> Result<usize, Errno> {
        if !self.access.write {
            return Err(Errno(errno::EBADF));
        }
        let (at, n) = with_tree(|tree, now| {
            let at = if self.access.append { tree.len(self.ino) } else { self.position.get() };
            Ok((at, tree.write(self.ino, at, from, now)?))
        })?;
        self.position.set(at + n as u64);
        Ok(n)
    }

    /// Moves its position by `offset` from `whence`; returns the new one.
    ///
    /// # Errors
    /// `EINVAL` where there is no such position.
    pub fn seek(&self, offset: i64, whence: Whence) -> Result<u64, Errno> {
        let from = match whence {
            Whence::Start => 0,
            Whence::Current => self.position.get(),
            Whence::End => with_tree(|tree, _| Ok(tree.len(self.ino)))?,
        };
        let position = from.checked_add_signed(offset).filter(|&p| i64::try_from(p).is_ok());
        let position = position.ok_or(Errno(errno::EINVAL))?;
        self.position.set(position);
        self.listed.set(false);
        Ok(position)
    }

    /// Writes all entries of a directory to `to`, as `std` expects it; returns how many bytes, 0
    /// after the first time.
    ///
    /// # Errors
    /// `EINVAL` if they do not fit, `ENOTDIR`.
    pub fn list(&self, to: &mut [u8]) -> Result<usize, Errno> {
        if self.listed.get() {
            return Ok(0);
        }
        let mut writer = Writer::new(to);
        let all = with_tree(|tree, _| {
            let mut entries = tree.list(self.ino)?;
            Ok(entries.all(|(name, ino, directory)| writer.push(name, ino, directory)))
        })?;
        if !all {
            return Err(Errno(errno::EINVAL));
        }
        self.listed.set(true);
        Ok(writer.used())
    }
}
