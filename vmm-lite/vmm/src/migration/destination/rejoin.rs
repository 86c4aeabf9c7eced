//! How a source that lost the link after the commit gets back to the thread that waits for its
//! pages.

use crate::migration::{Error, connection::Connection};
use std::{
    net::{Shutdown, TcpStream},
    os::fd::{AsRawFd, RawFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// Shared by the thread of the move and those that take connections.
#[derive(Debug)]
pub(super) struct Rejoin {
    /// The move's connection, to be ended from elsewhere.
    stream: Mutex<Arc<TcpStream>>,
    back: Mutex<Back>,
    event: EventFd,
}

#[derive(Default, Debug)]
struct Back {
    /// The VM runs and lacks pages: a source may come back.
    lacking: bool,
    /// On which it has, and which the move's thread has yet to take.
    connection: Option<Connection>,
}

impl Rejoin {
    pub fn new(stream: Arc<TcpStream>) -> Result<Self, Error> {
        let event = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map_err(Error::Event)?;
        Ok(Self { stream: Mutex::new(stream), back: Mutex::default(), event })
    }

    /// Ends the move's connection, whose thread sees that.
    pub fn shut_down(&self) {
        // One that has ended already does not mind.
        let _ = lock(&self.stream).shutdown(Shutdown::Both);
    }

    /// Whether pages are missing: for as long as they are, the move's thread takes a source that is
    /// back. One that came before they were not is still to be [taken](Self::take).
    pub fn set_lacking(&self, lacking: bool) {
        lock(&self.back).lacking = lacking;
    }

    /// The source is back on `connection`, on which it has asked. Handed back where no page is
    /// missing: the move's thread may have looked for the last time.
    pub fn join(&self, connection: Connection) -> Result<(), Connection> {
        let mut back = lock(&self.back);
        if !back.lacking {
            return Err(connection);
        }
        self.shut_down();
        back.connection = Some(connection);
        // It holds far more than the sources there are.
        let _ = self.event.write(1);
        Ok(())
    }

    /// The connection on which the source is back.
    pub fn take(&self) -> Option<Connection> {
        // Readable or not: what counts is whether one is there.
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
