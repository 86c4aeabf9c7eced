//! A process beside the VM's that has it protected again when it has no standby left: the VM's own
//! is confined, and can start nothing that a new connection needs.

use crate::{
    host::{
        beside::{beside, leave_behind},
        confine::Mode,
        poll::wait_readable,
    },
    identity::signer::socket::{put, take},
};
use std::{
    ffi::CStr,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

/// The process's name, as the host shows it.
const NAME: &CStr = c"vmm-protector";
/// How long after an attempt that failed the next one begins.
const AGAIN: Duration = Duration::from_secs(1);
/// The longest wait for a message, where nothing is to be done meanwhile.
const LONG: Duration = Duration::from_secs(3600);
/// The longest message: a VM's name and what precedes it.
const MESSAGE_MAX: usize = 256;

// How messages begin.
const NAMED: u8 = b'n';
const ALONE: u8 = b'a';
const PROTECTED: u8 = b'p';

/// The VM's end.
#[derive(Debug)]
pub struct Protector {
    socket: OwnedFd,
    /// Whether the VM is alone, as the process was told.
    told: bool,
}

impl Protector {
    /// Starts the process, detached from this one; when the VM is alone it calls `protect` with its
    /// name, until that returns whether it is protected. Call it while there is only one thread.
    ///
    /// # Errors
    /// The host's error.
    pub fn start(protect: impl FnMut(&str) -> bool) -> io::Result<Self> {
        let (socket, _) = beside(|socket, _| {
            // Both end it: it cannot go on, or the VM's process has ended.
            if leave_behind(NAME, Mode::Kill, &[socket.as_raw_fd()]).is_ok() {
                let _ = attend(socket, protect);
            }
        })?;
        Ok(Self::new(socket))
    }

    /// The one at the other end of `socket`.
    #[must_use]
    pub fn new(socket: OwnedFd) -> Self {
        Self { socket, told: false }
    }

    /// Another handle for the same process.
    ///
    /// # Errors
    /// The host's.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self::new(self.socket.try_clone()?))
    }

    /// The socket for the VM's process.
    #[must_use]
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Tells it the VM's name on this host.
    ///
    /// # Errors
    /// The socket's.
    pub fn named(&self, name: &str) -> io::Result<()> {
        put(&self.socket, &[&[NAMED], name.as_bytes()].concat())
    }

    /// Tells it whether the VM has no standby left.
    ///
    /// # Errors
    /// The socket's: the VM stays alone.
    pub(super) fn tell(&mut self, alone: bool) -> io::Result<()> {
        if self.told == alone {
            return Ok(());
        }
        self.told = alone;
        put(&self.socket, &[if alone { ALONE } else { PROTECTED }])
    }
}

/// Does what the messages say, until the socket is closed.
fn attend(socket: &OwnedFd, mut protect: impl FnMut(&str) -> bool) -> io::Result<()> {
    let (mut name, mut alone, mut next) = (None::<String>, false, Instant::now());
    loop {
        let to_protect = name.as_ref().filter(|_| alone);
        let wait = to_protect.map_or(LONG, |_| next.saturating_duration_since(Instant::now()));
        if !wait_readable(socket.as_raw_fd(), wait)? {
            if let Some(name) = to_protect {
                alone = !protect(name);
                next = Instant::now() + AGAIN;
            }
            continue;
        }
        let mut message = [0; MESSAGE_MAX];
        let n = take(socket, &mut message)?;
        match message[..n].split_first() {
            Some((&NAMED, of)) => name = String::from_utf8(of.to_vec()).ok(),
            Some((&ALONE, _)) => (alone, next) = (true, Instant::now()),
            Some((&PROTECTED, _)) => alone = false,
            _ => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::beside::pair;
    use std::sync::mpsc::{RecvTimeoutError, channel};

    #[test]
    fn a_vm_that_is_alone_is_protected_until_that_succeeds() {
        let (ours, theirs) = pair().unwrap();
        let (tell, tried) = channel();
        let attending = std::thread::spawn(move || {
            let mut times = 0;
            attend(&theirs, |name| {
                tell.send(name.to_owned()).unwrap();
                times += 1;
                times > 1
            })
        });
        let mut protector = Protector::new(ours);
        let soon = Duration::from_secs(20);
        // Alone before it has a name, as a standby may be that takes over while it starts.
        protector.tell(true).unwrap();
        protector.named("kv").unwrap();
        let began = Instant::now();
        assert_eq!(tried.recv_timeout(soon).unwrap(), "kv");
        assert_eq!(tried.recv_timeout(soon).unwrap(), "kv", "the first attempt has failed");
        assert!(began.elapsed() >= AGAIN);
        // Told the same again, it does nothing; protected and alone again, it does.
        protector.tell(true).unwrap();
        protector.tell(false).unwrap();
        protector.tell(true).unwrap();
        assert_eq!(tried.recv_timeout(soon).unwrap(), "kv");
        drop(protector);
        attending.join().unwrap().unwrap();
        assert_eq!(tried.recv_timeout(soon), Err(RecvTimeoutError::Disconnected));
    }
}
