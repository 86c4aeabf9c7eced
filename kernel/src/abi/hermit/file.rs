//! Files and directories.

use super::{
    errno::{int, size, unit},
    user,
};
use crate::{
    events,
    fd::{
        self, Errno, Object,
        file::{self, Access, OpenFile, Whence},
    },
    fs::{Open, Stat},
};
use core::ffi::c_char;
use hermit_abi::{
    O_APPEND, O_CREAT, O_DIRECTORY, O_EXCL, O_RDONLY, O_RDWR, O_TRUNC, O_WRONLY, S_IFCHR, S_IFDIR,
    S_IFIFO, S_IFREG, S_IFSOCK, SEEK_CUR, SEEK_END, SEEK_SET, dirent64, errno, stat, timespec,
};

const ACCESS: i32 = O_RDONLY | O_WRONLY | O_RDWR;

fn open(path: &[u8], flags: i32, mode: i32) -> Result<i32, Errno> {
    let (read, write) = match flags & ACCESS {
        O_RDONLY => (true, false),
        O_WRONLY => (false, true),
        O_RDWR => (true, true),
        _ => return Err(Errno(errno::EINVAL)),
    };
    let access = Access { read, write, append: flags & O_APPEND != 0 };
    let how = Open {
        write,
        create: flags & O_CREAT != 0,
        exclusive: flags & O_EXCL != 0,
        truncate: flags & O_TRUNC != 0,
        directory: flags & O_DIRECTORY != 0,
        mode: mode.cast_unsigned(),
    };
    file::open(path, access, how)
}

/// What a file was opened with, as flags.
pub(super) fn flags(file: &OpenFile) -> i32 {
    let Access { read, write, append } = file.access();
    let access = match (read, write) {
        (_, false) => O_RDONLY,
        (false, true) => O_WRONLY,
        (true, true) => O_RDWR,
    };
    access | if append { O_APPEND } else { 0 }
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

#[unsafe(no_mangle)]
unsafe extern "C" fn sys_unlink(path: *const c_char) -> i32 {
    events::checkpoint();
    // SAFETY: the caller's string.
    unit(unsafe { user::string(path) }.and_then(file::unlink))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn sys_mkdir(path: *const c_char, mode: u32) -> i32 {
    events::checkpoint();
    // SAFETY: the caller's string.
    unit(unsafe { user::string(path) }.and_then(|path| file::make_directory(path, mode)))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn sys_rmdir(path: *const c_char) -> i32 {
    events::checkpoint();
    // SAFETY: the caller's string.
    unit(unsafe { user::string(path) }.and_then(file::remove_directory))
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
    events::checkpoint();
    // SAFETY: the caller's string.
    let found = unsafe { user::string(path) }.and_then(file::stat);
    // SAFETY: the caller's buffer.
    unit(found.and_then(|found| unsafe { put(to, file_stat(&found)) }))
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
            Object::File(file) => file_stat(&file.stat()?),
            Object::Socket(_) => other(S_IFSOCK),
            Object::Event(_) => other(S_IFIFO),
        })
    });
    // SAFETY: the caller's buffer.
    unit(found.and_then(|found| unsafe { put(to, found) }))
}

/// Calls `f` with the file that `fd` stands for; the error `other` if it stands for something else.
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
    let position = with_file(fd, errno::ESPIPE, |file| {
        let whence = match whence {
            SEEK_SET => Whence::Start,
            SEEK_CUR => Whence::Current,
            SEEK_END => Whence::End,
            _ => return Err(Errno(errno::EINVAL)),
        };
        file.seek(offset as i64, whence)
    });
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
