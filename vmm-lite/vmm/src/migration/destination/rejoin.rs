//! How a source that lost the link after the commit reconnects to the thread that waits for its
//! pages.

use crate::migration::{Error, connection::Connection};
use std::{
    net::{Shutdown, TcpStream},
    os::fd::{AsRawFd, RawFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// Shared by the move's thread and those that accept connections.
#[derive(Debug)]
pub(super) struct Rejoin {
    /// The move's connection, so that another thread can close it.
    stream: Mutex<Arc<TcpStream>>,
    back: Mutex<Back>,
    event: EventFd,
}

#[derive(Default, Debug)]
struct Back {
    /// The VM runs with missing pages: a source may reconnect.
    lacking: bool,
    /// The new connection, which the move's thread has yet to take.
    connection: Option<Connection>,
}

impl Rejoin {
    pub fn new(stream: Arc<TcpStream>) -> Result<Self, Error> {
        let event = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map_err(Error::Event)?;
        Ok(Self { stream: Mutex::new(stream), back: Mutex::default(), event })
    }

    /// Closes the move's connection, whose thread sees that.
    pub fn shut_down(&self) {
        // A connection that has ended already ignores it.
        let _ = lock(&self.stream).shutdown(Shutdown::Both);
    }

    /// Sets whether pages are missing: while they are, the move's thread accepts a source that
    /// reconnects. A connection from before is still to be [taken](Self::take).
    pub fn set_lacking(&self, lacking: bool) {
        lock(&self.back).lacking = lacking;
    }

    /// The source has reconnected on `connection`, on which it has sent a question. Returned where
    /// no page is missing: the move's thread may have checked for the last time.
    pub fn join(&self, connection: Connection) -> Result<(), Connection> {
        let mut back = lock(&self.back);
        if !back.lacking {
            return Err(connection);
        }
        self.shut_down();
        back.connection = Some(connection);
        // The counter holds far more than any number of sources.
        let _ = self.event.write(1);
        Ok(())
    }

    /// The connection on which the source has reconnected.
    pub fn take(&self) -> Option<Connection> {
        // Readable or not: what counts is whether there is one.
        let _ = self.event.read();
        let connection = lock(&self.back).connection.take()?;
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
