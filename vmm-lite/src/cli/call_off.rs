//! Ctrl-C and SIGTERM while a verb waits for an operation of a VM. The first signal cancels the
//! operation and waits for the result, so that the verb always reports how it ended; the second
//! ends the verb at once.

use super::exit;
use crate::control::server::Signals;
use api::{Client, Error, verb::Cancel};
use std::{
    io,
    net::Shutdown,
    os::{fd::AsRawFd, unix::net::UnixStream},
    process::ExitCode,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};
use vmm::{
    host::poll::{Watch, wait_any},
    vm::StopReason,
};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// How often the loop polls without a signal; nothing depends on it.
const AGAIN: Duration = Duration::from_secs(3600);

/// Cancels the operation when a signal arrives, until this is dropped.
#[derive(Debug)]
pub struct CallOff {
    caught: Arc<Mutex<Option<StopReason>>>,
    asked: Arc<Mutex<Option<UnixStream>>>,
    over: EventFd,
    thread: Option<thread::JoinHandle<()>>,
}

impl CallOff {
    /// For an operation of the VM `name` that is about to be requested. A signal that arrives
    /// before the request ends the process, after `early`.
    ///
    /// # Errors
    /// The host's error.
    pub fn on(
        signals: Signals,
        name: &str,
        early: impl FnOnce() + Send + 'static,
    ) -> io::Result<Self> {
        let over = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?;
        let (caught, asked) = (Arc::default(), Arc::default());
        let watcher = Watcher {
            signals,
            name: name.into(),
            over: over.try_clone()?,
            asked: Arc::clone(&asked),
            caught: Arc::clone(&caught),
        };
        let thread =
            thread::Builder::new().name("signals".into()).spawn(move || watcher.run(early))?;
        Ok(Self { caught, asked, over, thread: Some(thread) })
    }

    /// The operation is requested on `client`, from now on.
    ///
    /// # Errors
    /// The host's error.
    pub fn asked(&self, client: &Client) -> io::Result<()> {
        *lock(&self.asked) = Some(client.stream().try_clone()?);
        Ok(())
    }

    /// The result of a verb whose operation failed: the signal's exit code, if a signal cancelled
    /// it.
    ///
    /// # Errors
    /// The error, if no signal did.
    pub fn failed(&self, error: Error) -> super::Result {
        let Some(code) = self.code() else { return Err(error.into()) };
        eprintln!("vmm-lite: {}", vmm::host::with_causes(&error));
        Ok(code)
    }

    /// Whether a signal has arrived.
    #[must_use]
    pub fn caught(&self) -> bool {
        lock(&self.caught).is_some()
    }

    fn code(&self) -> Option<ExitCode> {
        lock(&self.caught).map(|reason| ExitCode::from(exit::of_stop(reason)))
    }
}

impl Drop for CallOff {
    fn drop(&mut self) {
        // The pipe cannot be full: nothing else writes to it.
        let _ = self.over.write(1);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Watcher {
    signals: Signals,
    name: String,
    over: EventFd,
    asked: Arc<Mutex<Option<UnixStream>>>,
    caught: Arc<Mutex<Option<StopReason>>>,
}

impl Watcher {
    fn run(self, early: impl FnOnce()) {
        let Some(reason) = self.next() else { return };
        let asked = lock(&self.asked);
        let Some(stream) = asked.as_ref().and_then(|stream| stream.try_clone().ok()) else {
            early();
            // The lock is held until the exit, so that no request follows.
            std::process::exit(exit::of_stop(reason).into());
        };
        drop(asked);
        *lock(&self.caught) = Some(reason);
        eprintln!("vmm-lite: cancelling; a second signal ends this verb at once");
        let (name, end) = (self.name.clone(), stream.try_clone());
        // On a thread of its own: the answer may come after the second signal.
        let asks = thread::Builder::new().name("cancel".into()).spawn(move || {
            if let Err(e) = super::connect(&name).and_then(|mut client| client.call(Cancel {})) {
                eprintln!("vmm-lite: {}", vmm::host::with_causes(&e));
                if let (Error::Refused(_), Ok(end)) = (e, end) {
                    // The operation may not have begun yet: it does not begin if no client waits
                    // for it.
                    let _ = end.shutdown(Shutdown::Write);
                }
            }
        });
        if asks.is_err() || self.next().is_some() {
            // The thread that waits for the answer sees the end of the connection.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// The next signal; `None` when there is nothing left to cancel.
    fn next(&self) -> Option<StopReason> {
        let watched = [self.over.as_raw_fd(), self.signals.fd()].map(Watch::Readable);
        loop {
            match wait_any(watched, AGAIN) {
                Ok([true, _]) | Err(_) => return None,
                Ok([_, true]) => {
                    if let Some(reason) = self.signals.take() {
                        return Some(reason);
                    }
                }
                Ok(_) => {}
            }
        }
    }
}
