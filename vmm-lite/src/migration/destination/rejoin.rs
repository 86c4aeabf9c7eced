//! How a source that lost the link after the commit gets back to the thread that waits for its pages.

use crate::migration::{Error, connection::Connection};
use std::{
    io,
    net::{Shutdown, TcpStream},
    os::fd::{AsRawFd, RawFd},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// Shared by the thread of the move and those that take connections.
#[derive(Debug)]
pub(super) struct Rejoin {
    /// The move's connection, to be ended from elsewhere.
    stream: Mutex<Arc<TcpStream>>,
    /// The VM runs and lacks pages: a source may come back.
    lacking: AtomicBool,
    back: Mutex<Option<Connection>>,
    event: EventFd,
}

impl Rejoin {
    pub fn new(stream: Arc<TcpStream>) -> Result<Self, Error> {
        let event = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map_err(Error::Event)?;
        let (lacking, back) = Default::default();
        Ok(Self { stream: Mutex::new(stream), lacking, back, event })
    }

    /// Ends the move's connection, whose thread sees that.
    pub fn shut_down(&self) {
        // One that has ended already does not mind.
        let _ = lock(&self.stream).shutdown(Shutdown::Both);
    }

    /// Whether pages are missing.
    pub fn set_lacking(&self, lacking: bool) {
        self.lacking.store(lacking, SeqCst);
    }

    /// Whether the thread of the move waits for pages, and takes a source that is back.
    pub fn is_lacking(&self) -> bool {
        self.lacking.load(SeqCst)
    }

    /// The source is back on `connection`, on which it has asked.
    pub fn join(&self, connection: Connection) -> io::Result<()> {
        self.shut_down();
        *lock(&self.back) = Some(connection);
        self.event.write(1)
    }

    /// The connection on which the source is back.
    pub fn take(&self) -> Option<Connection> {
        // Readable or not: what counts is whether one is there.
        let _ = self.event.read();
        let connection = lock(&self.back).take()?;
        *lock(&self.stream) = connection.stream();
        Some(connection)
    }

    /// Readable when there is one.
    pub fn fd(&self) -> RawFd {
        self.event.as_raw_fd()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
