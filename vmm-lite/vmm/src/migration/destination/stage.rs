//! What a process that receives still needs, and how it gives up the rest.

use super::SILENCE;
use crate::{
    host::confine::{self, Thread},
    migration::{
        Error,
        connection::{Connection, Incoming},
        timeout,
    },
};
use migrate::wire::Message;
use std::{
    os::fd::{AsRawFd, RawFd},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// What it still needs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Stage {
    /// A VM may come: everything.
    Open,
    /// A VM is here: its source may reconnect, or ask about the outcome.
    Arrived,
    /// Its source knows the outcome: nothing.
    Over,
}

/// The stage, and the threads that wait for the next.
#[derive(Debug)]
pub struct Stages {
    stage: Mutex<Stage>,
    changed: Condvar,
    /// Readable when the stage has changed.
    event: EventFd,
}

impl Stages {
    pub(crate) fn new() -> Result<Self, Error> {
        let event = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map_err(Error::Event)?;
        Ok(Self { stage: Mutex::new(Stage::Open), changed: Condvar::new(), event })
    }

    /// The stage now. For the one thread that polls [`fd`](Self::fd).
    #[must_use]
    pub fn take(&self) -> Stage {
        // Readable or not: what counts is the stage.
        let _ = self.event.read();
        *self.stage()
    }

    /// Waits for the last stage, at most `timeout`.
    pub(super) fn wait_over(&self, most: Duration) {
        let waits = |stage: &mut Stage| *stage != Stage::Over;
        drop(self.changed.wait_timeout_while(self.stage(), most, waits));
    }

    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Readable when the stage has changed.
    #[must_use]
    pub fn fd(&self) -> RawFd {
        self.event.as_raw_fd()
    }

    /// Sets the stage, if it was not further already.
    pub(crate) fn enter(&self, next: Stage) {
        let mut stage = self.stage();
        if *stage < next {
            *stage = next;
            // The counter holds far more than the number of stages.
            let _ = self.event.write(1);
            self.changed.notify_all();
        }
    }
}

/// The calling thread gives up what making a VM needs. `false`: it cannot, and must not continue.
#[must_use]
pub fn narrow() -> bool {
    confine::enter(Thread::Arrived)
        .inspect_err(|e| tracing::error!("{}", crate::host::with_causes(e)))
        .is_ok()
}

/// Waits for the source's last message. `false`: it did not arrive.
pub(super) fn heard(connection: &mut Connection) -> bool {
    let end = Instant::now() + timeout(SILENCE);
    loop {
        let left = end.saturating_duration_since(Instant::now());
        match connection.wait(left) {
            Ok(true) => {}
            Ok(false) | Err(_) => return false,
        }
        match connection.receive(0) {
            Ok(Incoming::Message(Message::Heard)) => return true,
            // Forwarded packets may arrive until then.
            Ok(_) => {}
            Err(_) => return false,
        }
    }
}
