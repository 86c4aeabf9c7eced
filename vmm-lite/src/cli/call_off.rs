//! Ctrl-C and SIGTERM while a verb waits for an operation of a VM: the first calls the operation
//! off and waits for what becomes of that, so that the verb always says how it ended; the second
//! leaves.

use super::exit;
use crate::control::server::Signals;
use api::{Client, Error};
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

/// Looked at anew after that long; nothing depends on it.
const AGAIN: Duration = Duration::from_secs(3600);

/// Calls the operation off when a signal comes, until this is dropped.
#[derive(Debug)]
pub struct CallOff {
    caught: Arc<Mutex<Option<StopReason>>>,
    asked: Arc<Mutex<Option<UnixStream>>>,
    over: EventFd,
    thread: Option<thread::JoinHandle<()>>,
}

impl CallOff {
    /// For an operation of the VM `name` that is about to be asked for. A signal that comes before
    /// that ends the process, after `early`.
    ///
    /// # Errors
    /// What the host says.
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

    /// It is asked for on `client`, from now on.
    ///
    /// # Errors
    /// What the host says.
    pub fn asked(&self, client: &Client) -> io::Result<()> {
        *lock(&self.asked) = Some(client.stream().try_clone()?);
        Ok(())
    }

    /// What a verb ends with whose operation was not made: the signal's exit code, if one called it
    /// off.
    ///
    /// # Errors
    /// The error, if none did.
    pub fn failed(&self, error: Error) -> super::Result {
        let Some(code) = self.code() else { return Err(error.into()) };
        eprintln!("vmm-lite: {}", vmm::host::with_causes(&error));
        Ok(code)
    }

    /// Whether a signal has come.
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
        // It cannot be full: nothing else writes to it.
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
            // Held until then, so that nothing is asked for any more.
            std::process::exit(exit::of_stop(reason).into());
        };
        drop(asked);
        *lock(&self.caught) = Some(reason);
        eprintln!("vmm-lite: calling it off; once more, and this leaves it to itself");
        let (name, end) = (self.name.clone(), stream.try_clone());
        // On a thread of its own: the answer may take longer than it is until the second signal.
        let asks = thread::Builder::new().name("cancel".into()).spawn(move || {
            if let Err(e) = super::connect(&name).and_then(|mut client| client.call("cancel")) {
                eprintln!("vmm-lite: {}", vmm::host::with_causes(&e));
                if let (Error::Refused(_), Ok(end)) = (e, end) {
                    // It may be that it has yet to begin: it does not where nothing waits for it
                    // any more.
                    let _ = end.shutdown(Shutdown::Write);
                }
            }
        });
        if asks.is_err() || self.next().is_some() {
            // What waits for the answer finds the end of the connection.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// The next signal; `None` when there is nothing left to call off.
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
