//! Announces a guest's location to the network (rule R5).

use super::{Vm, paused::LINK_TIMEOUT};
use crate::{
    devices::net::{arp, link},
    host::confine::{self, Thread},
};
use std::{
    io,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// The thread is built for this filter.
const STACK: usize = 128 << 10;
/// Announcements are repeated: frames get lost, and a bridge accepts none through a port that has
/// just come up. (RFC 5227 has two, at longer intervals.)
const TIMES: u32 = 3;
const BETWEEN: Duration = Duration::from_millis(100);

/// Whether anything may be sent in the guest's name.
#[derive(Debug, Default)]
pub(super) struct Fence {
    /// The VM may run elsewhere: it must not run here (rule R1), and nothing is sent in its name.
    /// Locked while something is sent.
    fenced: Mutex<bool>,
}

impl Fence {
    fn lock(&self) -> MutexGuard<'_, bool> {
        self.fenced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps announcements from being sent, or permits them again. What is being sent is sent
    /// first.
    pub fn set(&self, fenced: bool) {
        *self.lock() = fenced;
    }
}

impl Vm {
    /// Announces to the network that this guest is here now; unless it may run elsewhere, where the
    /// network would not find it any more.
    ///
    /// # Errors
    /// The TAP's error.
    pub fn announce(&self) -> io::Result<()> {
        let fenced = self.shared.fence.lock();
        if *fenced {
            return Ok(());
        }
        for (net, port) in self.shared.identity.nets.iter().zip(&self.shared.nets) {
            for frame in arp::announcements(net.mac, net.ip.map(|ip| ip.address)) {
                port.tap.write(&frame)?;
            }
        }
        Ok(())
    }

    /// Keeps it from being announced while it is a standby's copy, or permits that again. What is
    /// being announced is announced first.
    pub fn keep_quiet(&self, quiet: bool) {
        self.shared.fence.set(quiet);
    }

    /// Whether the VM ends within this time.
    fn ends_within(&self, time: Duration) -> bool {
        let mut poll = libc::pollfd { fd: self.end_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one valid entry.
        unsafe { libc::poll(&raw mut poll, 1, time.as_millis() as i32) > 0 }
    }

    /// Like [`announce`](Self::announce), as soon as its TAP devices carry packets, which may take
    /// a while after they are opened. On a thread of its own.
    pub fn announce_when_up(&self) {
        if self.shared.nets.is_empty() {
            return;
        }
        let taps: Result<Vec<_>, _> = self.shared.nets.iter().map(|n| n.tap.try_clone()).collect();
        let vm = self.clone();
        let announce = move || {
            if let Err(e) = confine::enter(Thread::Announce) {
                tracing::error!(
                    "the VM is not announced to the network: {}",
                    crate::host::with_causes(&e)
                );
                return;
            }
            let told = taps.map_err(io::Error::other).and_then(|taps| {
                for tap in &taps {
                    link::wait_running(tap, LINK_TIMEOUT)?;
                }
                vm.announce()?;
                (1..TIMES)
                    .try_for_each(|_| if vm.ends_within(BETWEEN) { Ok(()) } else { vm.announce() })
            });
            if let Err(e) = told {
                tracing::warn!("the VM was not announced to the network: {e}");
            }
        };
        let thread = std::thread::Builder::new().name(Thread::Announce.name().into());
        if let Err(e) = thread.stack_size(STACK).spawn(announce) {
            tracing::warn!("the VM was not announced to the network: {e}");
        }
    }
}
