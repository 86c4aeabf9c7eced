//! The control of the vCPUs on this host: eventfds, signals and KVM's flag.

use super::{End, Runner};
use crate::{devices::console::Console, host::watchdog, kvm::ImmediateExit};
use std::{
    io,
    os::fd::{AsRawFd, RawFd},
    sync::Arc,
    time::{Duration, Instant},
};
use vcpu_control::{Platform, Wake};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// The control of a VM's vCPUs.
pub(crate) type Control = vcpu_control::Control<Surroundings>;
/// What they do.
pub(crate) type Phase = vcpu_control::Phase<Arc<End>>;

/// How long a thread polls for another where blackout depends on it: a wake-up takes tens of
/// microseconds. Not for much longer: a polling thread of real-time priority keeps ordinary
/// threads, which do the work of the host's network, from its CPU.
const POLL: Duration = Duration::from_micros(250);

/// What the end of a VM affects.
#[derive(Debug)]
pub(crate) struct Surroundings {
    pub console: Console,
    /// Readable for good once the VM has ended.
    ended: EventFd,
}

impl Surroundings {
    pub fn new(console: Console) -> io::Result<Self> {
        Ok(Self { console, ended: event()? })
    }

    /// Readable once the VM has ended.
    pub fn end_fd(&self) -> RawFd {
        self.ended.as_raw_fd()
    }
}

/// The control of these vCPUs.
pub(super) fn of(
    runners: impl Iterator<Item = Runner>,
    surroundings: Surroundings,
) -> io::Result<Control> {
    let parts = runners.map(|runner| {
        let kick = runner.vcpu.kick_handle();
        Ok((runner, kick, WakeEvent(event()?)))
    });
    Ok(Control::new(surroundings, parts.collect::<io::Result<Vec<_>>>()?))
}

fn event() -> io::Result<EventFd> {
    EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)
}

impl Platform for Surroundings {
    type Machine = Runner;
    type End = Arc<End>;
    type Guest = ImmediateExit;
    type Wake = WakeEvent;

    fn ended(&self) {
        self.console.close();
        // Cannot overflow: a VM ends once.
        let _ = self.ended.write(1);
    }

    fn waits<T>(wait: impl FnOnce() -> T) -> T {
        // For a thread that is watched itself.
        watchdog::waits(wait)
    }

    fn poll_for_a_moment(so: impl Fn() -> bool) {
        let end = Instant::now() + POLL;
        while !so() && Instant::now() < end {
            std::thread::yield_now();
        }
    }

    fn yield_now() {
        std::thread::yield_now();
    }
}

/// What ends the wait of a vCPU's thread.
#[derive(Debug)]
pub(crate) struct WakeEvent(EventFd);

impl Wake for WakeEvent {
    fn wake(&self) {
        // The counter cannot overflow in practice, and a full one wakes the thread too.
        let _ = self.0.write(1);
    }
}

impl WakeEvent {
    /// Readable when the wait is to end.
    pub fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// Makes it unreadable again.
    pub fn clear(&self) {
        let _ = self.0.read();
    }
}
