//! Files and directories.

use super::{
    errno::{Errno, int, size, unit},
    fd::{self, Object},
    user,
};
use crate::events;
use crate::{
    cpu::KernelCell,
    fs::{Ino, Open, Stat, Tree, entries::Writer},
    time,
};
use core::{cell::Cell, ffi::c_char};
use hermit_abi::{
    O_APPEND, O_CREAT, O_DIRECTORY, O_EXCL, O_RDONLY, O_RDWR, O_TRUNC, O_WRONLY, S_IFCHR, S_IFDIR,
    S_IFIFO, S_IFREG, S_IFSOCK, SEEK_CUR, SEEK_END, SEEK_SET, dirent64, errno, stat, timespec,
};

static TREE: KernelCell<Option<Tree>> = KernelCell::new(None);

/// Calls `f` with all files and the time.
fn with_tree<R>(f: impl FnOnce(&mut Tree, u64) -> R) -> R {
    let now = time::wall_ns();
    TREE.with(|tree| f(tree.get_or_insert_with(|| Tree::new(now)), now))
}

/// A file or directory that is open.
#[derive(Debug)]
pub struct OpenFile {
    ino: Ino,
    flags: i32,
    position: Cell<u64>,
    /// A directory's entries have been read.
    listed: Cell<bool>,
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        with_tree(|tree, _| tree.close(self.ino));
    }
}

const ACCESS: i32 = O_RDONLY | O_WRONLY | O_RDWR;

impl OpenFile {
    /// How it was opened.
    pub fn flags(&self) -> i32 {
        self.flags & (ACCESS | O_APPEND)
    }

    /// Reads from its position on.
    pub fn read(&self, to: &mut [u8]) -> Result<usize, Errno> {
        if self.flags & ACCESS == O_WRONLY {
            return Err(Errno(errno::EBADF));
        }
        let at = self.position.get();
        let n = with_tree(|tree, now| tree.read(self.ino, at, to, now))?;
        self.position.set(at + n as u64);
        Ok(n)
    }

    /// Writes at its position, or at the end if it was opened to append.
    pub fn write(&self, from: &[u8]) -> Result<usize, Errno> {
        if self.flags & ACCESS == O_RDONLY {
            return Err(Errno(errno::EBADF));
        }
        let (at, n) = with_tree(|tree, now| {
            let append = self.flags & O_APPEND != 0;
            let at = if append { tree.len(self.ino) } else { self.position.get() };
            Ok::<_, Errno>((at, tree.write(self.ino, at, from, now)?))
        })?;
        self.position.set(at + n as u64);
        Ok(n)
    }

    fn seek(&self, offset: i64, whence: i32) -> Result<u64, Errno> {
        let from = match whence {
            SEEK_SET => 0,
            SEEK_CUR => self.position.get(),
            SEEK_END => with_tree(|tree, _| tree.len(self.ino)),
            _ => return Err(Errno(errno::EINVAL)),
        };
        let position = from.checked_add_signed(offset).filter(|&p| i64::try_from(p).is_ok());
        let position = position.ok_or(Errno(errno::EINVAL))?;
        self.position.set(position);
        self.listed.set(false);
        Ok(position)
    }

    /// All entries at once, as `std` expects it.
    fn list(&self, to: &mut [u8]) -> Result<usize, Errno> {
        if self.listed.get() {
            return Ok(0);
        }
        let mut writer = Writer::new(to);
        let all = with_tree(|tree, _| {
            let mut entries = tree.list(self.ino)?;
            Ok::<_, Errno>(entries.all(|(name, ino, directory)| writer.push(name, ino, directory)))
        })?;
        if !all {
            return Err(Errno(errno::EINVAL));
        }
        self.listed.set(true);
        Ok(writer.used())
    }
}

fn open(path: &[u8], flags: i32, mode: i32) -> Result<i32, Errno> {
    if flags & ACCESS == ACCESS {
        return Err(Errno(errno::EINVAL));
    }
    let how = Open {
        write: flags & ACCESS != O_RDONLY,
        create: flags & O_CREAT != 0,
        exclusive: flags & O_EXCL != 0,
        truncate: flags & O_TRUNC != 0,
        directory: flags & O_DIRECTORY != 0,
        mode: mode.cast_unsigned() & !0o022,
    };
    let ino = with_tree(|tree, now| tree.open(path, how, now))?;
    let file = OpenFile { ino, flags, position: Cell::new(0), listed: Cell::new(false) };
    fd::open(Object::File(file), false)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn sys_open(path: *const c_char, flags: i32, mode: i32) -> i32 {
    events::checkpoint();
    // SAFETY: the caller's string.
    int(unsafe { user::string(path) }.and_then(|path| open(path, flags, mode)))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn sys_opendir(path: *const c_char) -> i32 {
    events::checkpoint();
    // SAFETY: the caller's string.
    int(unsafe { user::string(path) }.and_then(|path| open(path, O_RDONLY | O_DIRECTORY, 0)))
}

/// Calls `f` with the caller's path, all files and the time.
///
/// # Safety
/// `path` ends in a NUL.
unsafe fn with_path<R>(
    path: *const c_char,
    f: impl FnOnce(&mut Tree, &[u8], u64) -> Result<R, crate::fs::Error>,
) -> Result<R, Errno> {
    events::checkpoint();
    // SAFETY: as the caller promises.
    let path = unsafe { user::string(path)? };
    Ok(with_tree(|tree, now| f(tree, path, now))?)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn sys_unlink(path: *const c_char) -> i32 {
    // SAFETY: the caller's string.
    unit(unsafe { with_path(path, |tree, path, now| tree.unlink(path, now)) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn sys_mkdir(path: *const c_char, mode: u32) -> i32 {
    let mode = mode & !0o022;
    // SAFETY: the caller's string.
    unit(unsafe { with_path(path, |tree, path, now| tree.make_directory(path, mode, now)) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn sys_rmdir(path: *const c_char) -> i32 {
    // SAFETY: the caller's string.
    unit(unsafe { with_path(path, |tree, path, now| tree.remove_directory(path, now)) })
}

fn timespec(ns: u64) -> timespec {
    timespec { tv_sec: (ns / 1_000_000_000) as i64, tv_nsec: (ns % 1_000_000_000) as i32 }
}

fn file_stat(from: &Stat) -> stat {
    stat {
        st_ino: from.ino.0,
        st_nlink: from.links,
        st_mode: from.mode | if from.is_directory { S_IFDIR } else { S_IFREG },
        st_size: from.len as i64,
        st_blksize: 4096,
        st_blocks: (from.allocated / 512) as i64,
        st_atim: timespec(from.accessed),
        st_mtim: timespec(from.modified),
        // What std calls the time of creation.
        st_ctim: timespec(from.created),
        ..stat::default()
    }
}

/// # Safety
/// `to` is null or the caller's.
unsafe fn put(to: *mut stat, from: stat) -> Result<(), Errno> {
    if to.is_null() {
        return Err(Errno(errno::EFAULT));
    }
    // SAFETY: not null, and the caller's.
    unsafe { to.write_unaligned(from) };
    Ok(())
}

#[unsafe(no_mangle)]
unsafe extern "C" fn sys_stat(path: *const c_char, to: *mut stat) -> i32 {
    // SAFETY: the caller's string, and its buffer.
    unit(unsafe {
        with_path(path, |tree, path, _| tree.stat_path(path)).and_then(|s| put(to, file_stat(&s)))
    })
}

/// There are no symbolic links.
#[unsafe(no_mangle)]
unsafe extern "C" fn sys_lstat(path: *const c_char, to: *mut stat) -> i32 {
    // SAFETY: as there.
    unsafe { sys_stat(path, to) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn sys_fstat(fd: i32, to: *mut stat) -> i32 {
    events::checkpoint();
    let other =
        |mode| stat { st_mode: mode | 0o600, st_nlink: 1, st_blksize: 4096, ..stat::default() };
    let found = fd::get(fd).and_then(|description| {
        Ok(match &description.object {
            Object::Stdin | Object::Stdout => other(S_IFCHR),
            Object::File(file) => file_stat(&with_tree(|tree, _| tree.stat(file.ino))?),
            Object::Socket(_) => other(S_IFSOCK),
            Object::Event(_) => other(S_IFIFO),
        })
    });
    // SAFETY: the caller's buffer.
    unit(found.and_then(|found| unsafe { put(to, found) }))
}

/// Calls `f` with the file that `fd` stands for.
fn with_file<R>(
    fd: i32,
    other: i32,
    f: impl FnOnce(&OpenFile) -> Result<R, Errno>,
) -> Result<R, Errno> {
    events::checkpoint();
    match &fd::get(fd)?.object {
        Object::File(file) => f(file),
        _ => Err(Errno(other)),
    }
}

#[unsafe(no_mangle)]
extern "C" fn sys_lseek(fd: i32, offset: isize, whence: i32) -> isize {
    let position = with_file(fd, errno::ESPIPE, |file| file.seek(offset as i64, whence));
    size(position.map(|position| position as usize))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn sys_getdents64(fd: i32, to: *mut dirent64, len: usize) -> i64 {
    // SAFETY: the caller's buffer.
    let to = unsafe { user::bytes_mut(to.cast(), len) };
    size(with_file(fd, errno::ENOTDIR, |file| file.list(to?))) as i64
}

/// All there is of a file is in memory.
#[unsafe(no_mangle)]
extern "C" fn sys_fsync(fd: i32) -> i32 {
    unit(with_file(fd, errno::EINVAL, |_| Ok(())))
}
