//! Descriptors: what they stand for, and what can be done with all of them.

use super::{
    errno::{Errno, int, size, unit},
    eventfd::EventFd,
    file::OpenFile,
    socket::Socket,
    stdio, user,
};
use crate::events;
use crate::{
    cpu::KernelCell,
    fd::descriptors::Descriptors,
    sched::readiness::{Ready, Waits},
};
use alloc::rc::Rc;
use core::{cell::Cell, ffi::c_void};
use hermit_abi::{FIONBIO, O_NONBLOCK, errno, iovec};

/// What is open: shared by all descriptors that were duplicated from one another.
#[derive(Debug)]
pub struct Description {
    /// What it is.
    pub object: Object,
    /// Calls do not wait.
    pub nonblocking: Cell<bool>,
}

/// Things that have descriptors.
#[derive(Debug)]
pub enum Object {
    /// The console's input.
    Stdin,
    /// Its output.
    Stdout,
    /// A file or a directory.
    File(OpenFile),
    /// A socket.
    Socket(Socket),
    /// A counter that threads wait for.
    Event(EventFd),
}

static TABLE: KernelCell<Option<Descriptors<Description>>> = KernelCell::new(None);

/// Calls `f` with the table, which has standard input, output and error from the start.
pub fn with_table<R>(f: impl FnOnce(&mut Descriptors<Description>) -> R) -> R {
    TABLE.with(|table| {
        f(table.get_or_insert_with(|| {
            let mut table = Descriptors::new();
            for object in [Object::Stdin, Object::Stdout, Object::Stdout] {
                let description = Description { object, nonblocking: Cell::new(false) };
                table.insert(Rc::new(description), 0).expect("the first three");
            }
            table
        }))
    })
}

/// What `fd` stands for.
///
/// # Errors
/// `EBADF`.
pub fn get(fd: i32) -> Result<Rc<Description>, Errno> {
    Ok(with_table(|table| table.get(fd).cloned())?)
}

/// A descriptor for `object`.
///
/// # Errors
/// `EMFILE`; the object is closed then.
pub fn open(object: Object, nonblocking: bool) -> Result<i32, Errno> {
    let description = Rc::new(Description { object, nonblocking: Cell::new(nonblocking) });
    // What cannot be inserted is closed when the table is not lent any more.
    let kept = Rc::clone(&description);
    let fd = with_table(|table| table.insert(description, 0));
    drop(kept);
    Ok(fd?)
}

impl Description {
    fn read(&self, to: &mut [u8]) -> Result<usize, Errno> {
        let nonblocking = self.nonblocking.get();
        match &self.object {
            Object::Stdin => stdio::read(to, nonblocking),
            Object::Stdout => Err(Errno(errno::EBADF)),
            Object::File(file) => file.read(to),
            Object::Socket(socket) => socket.receive(to, false, nonblocking),
            Object::Event(event) => event.read(to, nonblocking),
        }
    }

    fn write(&self, from: &[u8]) -> Result<usize, Errno> {
        let nonblocking = self.nonblocking.get();
        match &self.object {
            Object::Stdin => Err(Errno(errno::EBADF)),
            Object::Stdout => Ok(stdio::write(from)),
            Object::File(file) => file.write(from),
            Object::Socket(socket) => socket.send(from, None, nonblocking),
            Object::Event(event) => event.write(from, nonblocking),
        }
    }

    /// What it is ready for.
    pub fn ready(&self) -> Ready {
        let always = Ready { readable: true, writable: true, ..Ready::default() };
        match &self.object {
            Object::Stdin => Ready { readable: stdio::readable(), ..Ready::default() },
            Object::Stdout | Object::File(_) => always,
            Object::Socket(socket) => socket.ready(),
            Object::Event(event) => event.ready(),
        }
    }

    /// Where those wait whom news of it concern; for what is always ready, nowhere.
    pub fn waits(&self) -> Option<&Rc<Waits>> {
        match &self.object {
            Object::Stdin | Object::Stdout | Object::File(_) => None,
            Object::Socket(socket) => Some(&socket.waits),
            Object::Event(event) => Some(&event.waits),
        }
    }

    /// Whether a message keeps its borders in it, so that a list of buffers is one message.
    fn has_messages(&self) -> bool {
        match &self.object {
            Object::Socket(socket) => socket.is_datagram(),
            Object::Event(_) => true,
            _ => false,
        }
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn sys_read(fd: i32, at: *mut u8, len: usize) -> isize {
    events::checkpoint();
    // SAFETY: the caller's buffer.
    let to = unsafe { user::bytes_mut(at, len) };
    size(get(fd).and_then(|description| description.read(to?)))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn sys_write(fd: i32, at: *const u8, len: usize) -> isize {
    events::checkpoint();
    // SAFETY: the caller's buffer.
    let from = unsafe { user::bytes(at, len) };
    size(get(fd).and_then(|description| description.write(from?)))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn sys_readv(fd: i32, at: *const iovec, count: usize) -> isize {
    events::checkpoint();
    // SAFETY: the caller's list.
    let vectors = unsafe { user::vectors(at, count) };
    size(get(fd).and_then(|description| {
        let vectors = vectors?.iter().filter(|v| v.iov_len > 0);
        if description.has_messages() {
            return read_message(&description, vectors);
        }
        let mut total = 0;
        for vector in vectors {
            if total > 0 && !description.ready().readable {
                break;
            }
            // SAFETY: the caller's buffers.
            let to = unsafe { user::bytes_mut(vector.iov_base.cast(), vector.iov_len)? };
            match description.read(to) {
                Ok(n) => {
                    total += n;
                    if n < to.len() {
                        break;
                    }
                }
                Err(_) if total > 0 => break,
                Err(e) => return Err(e),
            }
        }
        Ok(total)
    }))
}

/// Reads one message, spread over the buffers.
fn read_message<'a>(
    description: &Description,
    vectors: impl Iterator<Item = &'a iovec> + Clone,
) -> Result<usize, Errno> {
    let len = vectors.clone().map(|v| v.iov_len).sum();
    let mut whole = alloc::vec::Vec::new();
    whole.try_reserve_exact(len).map_err(|_| Errno(errno::ENOMEM))?;
    whole.resize(len, 0);
    let n = description.read(&mut whole)?;
    let mut rest = &whole[..n];
    for vector in vectors {
        // SAFETY: the caller's buffers.
        let to = unsafe { user::bytes_mut(vector.iov_base.cast(), vector.iov_len)? };
        let (now, later) = rest.split_at(rest.len().min(to.len()));
        to[..now.len()].copy_from_slice(now);
        rest = later;
    }
    Ok(n)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn sys_writev(fd: i32, at: *const iovec, count: usize) -> isize {
    events::checkpoint();
    // SAFETY: the caller's list.
    let vectors = unsafe { user::vectors(at, count) };
    size(get(fd).and_then(|description| {
        let vectors = vectors?.iter().filter(|v| v.iov_len > 0);
        // SAFETY: the caller's buffers.
        let bytes = |v: &iovec| unsafe { user::bytes(v.iov_base.cast_const().cast(), v.iov_len) };
        if description.has_messages() {
            let mut whole = alloc::vec::Vec::new();
            for vector in vectors {
                whole.extend_from_slice(bytes(vector)?);
            }
            return description.write(&whole);
        }
        let mut total = 0;
        for vector in vectors {
            if total > 0 && !description.ready().writable {
                break;
            }
            let from = bytes(vector)?;
            match description.write(from) {
                Ok(n) => {
                    total += n;
                    if n < from.len() {
                        break;
                    }
                }
                Err(_) if total > 0 => break,
                Err(e) => return Err(e),
            }
        }
        Ok(total)
    }))
}

#[unsafe(no_mangle)]
extern "C" fn sys_close(fd: i32) -> i32 {
    events::checkpoint();
    // The last one closes what it stands for, when the table is not lent any more.
    let gone = with_table(|table| table.remove(fd));
    unit(gone.map(drop).map_err(Errno::from))
}

fn duplicate(fd: i32, least: usize) -> Result<i32, Errno> {
    Ok(with_table(|table| {
        let description = Rc::clone(table.get(fd)?);
        table.insert(description, least)
    })?)
}

#[unsafe(no_mangle)]
extern "C" fn sys_dup(fd: i32) -> i32 {
    events::checkpoint();
    int(duplicate(fd, 0))
}

#[unsafe(no_mangle)]
extern "C" fn sys_fcntl(fd: i32, command: i32, argument: i32) -> i32 {
    events::checkpoint();
    int(get(fd).and_then(|description| match command {
        hermit_abi::F_DUPFD => match usize::try_from(argument) {
            Ok(least) => duplicate(fd, least),
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
        Object::File(file) => file.flags(),
        Object::Socket(_) | Object::Event(_) => hermit_abi::O_RDWR,
    };
    access | if description.nonblocking.get() { O_NONBLOCK } else { 0 }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn sys_ioctl(fd: i32, command: i32, argument: *mut c_void) -> i32 {
    events::checkpoint();
    unit(get(fd).and_then(|description| {
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
