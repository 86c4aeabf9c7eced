//! The program's descriptors, and what can be done with all of them.

use super::{
    Errno, console, descriptors::Descriptors, eventfd::EventFd, file::OpenFile, socket::Socket,
};
use crate::{
    cpu::KernelCell,
    sched::readiness::{Ready, Waits},
};
use alloc::rc::Rc;
use core::cell::Cell;
use hermit_abi::errno;

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
pub(super) fn with_table<R>(f: impl FnOnce(&mut Descriptors<Description>) -> R) -> R {
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

/// Closes `fd`, and with the last of its duplicates what it stands for.
///
/// # Errors
/// `EBADF`.
pub fn close(fd: i32) -> Result<(), Errno> {
    // Dropped when the table is not lent any more.
    let removed = with_table(|table| table.remove(fd));
    Ok(removed.map(drop)?)
}

/// Another descriptor for what `fd` stands for: the smallest that is free, from `least` on.
///
/// # Errors
/// `EBADF`, `EMFILE`.
pub fn duplicate(fd: i32, least: usize) -> Result<i32, Errno> {
    Ok(with_table(|table| {
        let description = Rc::clone(table.get(fd)?);
        table.insert(description, least)
    })?)
}

impl Description {
    /// Reads; returns how many bytes, 0 at the end.
    ///
    /// # Errors
    /// As on Linux.
    pub fn read(&self, to: &mut [u8]) -> Result<usize, Errno> {
        let nonblocking = self.nonblocking.get();
        match &self.object {
            Object::Stdin => console::read(to, nonblocking),
            Object::Stdout => Err(Errno(errno::EBADF)),
            Object::File(file) => file.read(to),
            Object::Socket(socket) => socket.receive(to, false, nonblocking),
            Object::Event(event) => event.read(to, nonblocking),
        }
    }

    /// Writes; returns how many bytes.
    ///
    /// # Errors
    /// As on Linux.
    pub fn write(&self, from: &[u8]) -> Result<usize, Errno> {
        let nonblocking = self.nonblocking.get();
        match &self.object {
            Object::Stdin => Err(Errno(errno::EBADF)),
            Object::Stdout => Ok(console::write(from)),
            Object::File(file) => file.write(from),
            Object::Socket(socket) => socket.send(from, None, nonblocking),
            Object::Event(event) => event.write(from, nonblocking),
        }
    }

    /// What it is ready for.
    pub fn ready(&self) -> Ready {
        let always = Ready { readable: true, writable: true, ..Ready::default() };
        match &self.object {
            Object::Stdin => Ready { readable: console::readable(), ..Ready::default() },
            Object::Stdout | Object::File(_) => always,
            Object::Socket(socket) => socket.ready(),
            Object::Event(event) => event.ready(),
        }
    }

    /// Where threads wait for it to become ready; `None` for what is always ready, and for the
    /// console's input.
    pub(super) fn waits(&self) -> Option<&Rc<Waits>> {
        match &self.object {
            Object::Stdin | Object::Stdout | Object::File(_) => None,
            Object::Socket(socket) => Some(socket.waits()),
            Object::Event(event) => Some(event.waits()),
        }
    }

    /// Whether each read and each write is one message, so that a list of buffers is one too.
    pub(super) fn has_messages(&self) -> bool {
        match &self.object {
            Object::Socket(socket) => socket.is_datagram(),
            Object::Event(_) => true,
            _ => false,
        }
    }
}
