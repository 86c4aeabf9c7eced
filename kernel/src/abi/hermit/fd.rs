//! What can be done with all descriptors.

use super::{
    errno::{int, size, unit},
    file, user,
};
use crate::{
    events,
    fd::{self, Description, Errno, Object, vectored},
};
use core::ffi::c_void;
use hermit_abi::{FIONBIO, O_NONBLOCK, errno, iovec};

#[unsafe(no_mangle)]
unsafe extern "C" fn sys_read(fd: i32, at: *mut u8, len: usize) -> isize {
    events::checkpoint();
    // SAFETY: the caller's buffer.
    let to = unsafe { user::bytes_mut(at, len) };
    size(fd::get(fd).and_then(|description| description.read(to?)))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn sys_write(fd: i32, at: *const u8, len: usize) -> isize {
    events::checkpoint();
    // SAFETY: the caller's buffer.
    let from = unsafe { user::bytes(at, len) };
    size(fd::get(fd).and_then(|description| description.write(from?)))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn sys_readv(fd: i32, at: *const iovec, count: usize) -> isize {
    events::checkpoint();
    // SAFETY: the caller's list.
    let vectors = unsafe { user::vectors(at, count) };
    size(fd::get(fd).and_then(|description| {
        let vectors = vectors?.iter().filter(|v| v.iov_len > 0);
        let len = vectors.clone().fold(0_usize, |sum, v| sum.saturating_add(v.iov_len));
        // SAFETY: the caller's buffers.
        let bytes = |v: &iovec| unsafe { user::bytes_mut(v.iov_base.cast(), v.iov_len) };
        vectored::read(&description, len, vectors.map(bytes))
    }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn sys_writev(fd: i32, at: *const iovec, count: usize) -> isize {
    events::checkpoint();
    // SAFETY: the caller's list.
    let vectors = unsafe { user::vectors(at, count) };
    size(fd::get(fd).and_then(|description| {
        let vectors = vectors?.iter().filter(|v| v.iov_len > 0);
        // SAFETY: the caller's buffers.
        let bytes = |v: &iovec| unsafe { user::bytes(v.iov_base.cast_const().cast(), v.iov_len) };
        vectored::write(&description, vectors.map(bytes))
    }))
}

#[unsafe(no_mangle)]
extern "C" fn sys_close(fd: i32) -> i32 {
    events::checkpoint();
    unit(fd::close(fd))
}

#[unsafe(no_mangle)]
extern "C" fn sys_dup(fd: i32) -> i32 {
    events::checkpoint();
    int(fd::duplicate(fd, 0))
}

#[unsafe(no_mangle)]
extern "C" fn sys_fcntl(fd: i32, command: i32, argument: i32) -> i32 {
    events::checkpoint();
    int(fd::get(fd).and_then(|description| match command {
        hermit_abi::F_DUPFD => match usize::try_from(argument) {
            Ok(least) => fd::duplicate(fd, least),
            Err(_) => Err(Errno(errno::EINVAL)),
        },
        // No other program will ever run: nothing to be closed for it.
        hermit_abi::F_GETFD => Ok(hermit_abi::FD_CLOEXEC),
        hermit_abi::F_SETFD => Ok(0),
        hermit_abi::F_GETFL => Ok(flags(&description)),
        hermit_abi::F_SETFL => {
            description.nonblocking.set(argument & O_NONBLOCK != 0);
            Ok(0)
        }
        _ => Err(Errno(errno::EINVAL)),
    }))
}

fn flags(description: &Description) -> i32 {
    let access = match &description.object {
        Object::Stdin => hermit_abi::O_RDONLY,
        Object::Stdout => hermit_abi::O_WRONLY,
        Object::File(file) => file::flags(file),
        Object::Socket(_) | Object::Event(_) => hermit_abi::O_RDWR,
    };
    access | if description.nonblocking.get() { O_NONBLOCK } else { 0 }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn sys_ioctl(fd: i32, command: i32, argument: *mut c_void) -> i32 {
    events::checkpoint();
    unit(fd::get(fd).and_then(|description| {
        if command != FIONBIO {
            return Err(Errno(errno::ENOTTY));
        }
        if argument.is_null() {
            return Err(Errno(errno::EFAULT));
        }
        // SAFETY: for this command, the caller's int.
        let on = unsafe { argument.cast::<i32>().read_unaligned() };
        description.nonblocking.set(on != 0);
        Ok(())
    }))
}
