//! Waits, on the vCPU thread, for events that concern the guest.

use super::{Exits, Runner, Vcpus, output::Blocked};
use crate::devices::{Devices, Violation, bus::DEVICES_MAX};
use std::{os::fd::RawFd, ptr, time::Duration};

/// Serves the devices and the console of a waiting guest. `None` if something reached it, its
/// deadline is over, or it has to check a request.
pub(super) fn for_something(
    runner: &mut Runner,
    devices: &mut Devices,
    vcpus: &Vcpus,
    member: usize,
    deadline: u64,
) -> Result<Option<WaitFor>, Violation> {
    let control = &vcpus.control;
    // Announced before the last check of everything that a nudge can be about.
    control.set_waiting(member, true);
    let wait_for = settle(runner, devices, vcpus, deadline);
    match wait_for {
        Ok(Some(_)) if control.stop_is_near() => runner.capture_early(),
        Ok(Some(_)) => {}
        Ok(None) | Err(_) => control.set_waiting(member, false),
    }
    wait_for
}

/// How often a guest checks again that has more to send than its queue holds, while the queue is
/// not emptied. It asks to be woken at once, and could do nothing.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// `poll` ignores a negative descriptor.
const NOTHING: (RawFd, i16) = (-1, 0);

/// The events to wait for when there is no work.
#[derive(Debug)]
pub(super) struct WaitFor {
    /// What to poll for the devices: descriptors, or -1, and events.
    devices: [(RawFd, i16); DEVICES_MAX],
    /// Nanoseconds, or no limit.
    timeout: Option<u64>,
}

/// Does the pending work; `None` if that concerns the guest.
fn settle(
    runner: &mut Runner,
    devices: &mut Devices,
    vcpus: &Vcpus,
    deadline: u64,
) -> Result<Option<WaitFor>, Violation> {
    let (mut polled, mut again_in, mut stuck) = ([NOTHING; DEVICES_MAX], None, false);
    for (device, poll) in devices.bus.devices_mut().zip(&mut polled) {
        let service = device.serve(vcpus.memory_at_exit())?;
        if service.progress {
            return Ok(None);
        }
        *poll = service.poll.unwrap_or(NOTHING);
        again_in = [again_in, service.again_in].into_iter().flatten().min();
        stuck |= service.stuck;
    }
    if devices.rings.fill(vcpus.memory_at_exit(), vcpus.console())? {
        return Ok(None);
    }
    let control = &vcpus.control;
    if control.pause_wanted() || control.quiesce_wanted() || control.look_wanted() {
        return Ok(None);
    }
    let again_in = again_in.map(nanoseconds);
    let timeout = match devices.clock.until(deadline) {
        Some(0) if stuck && !std::mem::replace(&mut runner.stuck, true) => {
            Some(nanoseconds(LOOK_AGAIN))
        }
        Some(0) => return Ok(None),
        timeout => timeout,
    };
    Ok(Some(WaitFor { devices: polled, timeout: [timeout, again_in].into_iter().flatten().min() }))
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl WaitFor {
    /// Until `fd` is readable.
    pub(super) fn readable(fd: RawFd) -> Self {
        let mut devices = [NOTHING; DEVICES_MAX];
        devices[0] = (fd, libc::POLLIN);
        Self { devices, timeout: None }
    }

    /// Waits. The caller must not hold the VM.
    pub(super) fn wait(&self, vcpus: &Vcpus, member: usize) {
        Exits::count(&vcpus.exits.slept);
        let wake = vcpus.control.wake(member);
        let entry = |fd, events| libc::pollfd { fd, events, revents: 0 };
        let mut fds = [entry(-1, 0); 1 + DEVICES_MAX];
        fds[0] = entry(wake.fd(), libc::POLLIN);
        for (to, (fd, events)) in fds[1..].iter_mut().zip(self.devices) {
            *to = entry(fd, events);
        }
        poll(&mut fds, self.timeout);
        vcpus.control.set_waiting(member, false);
        if fds[0].revents != 0 {
            wake.clear();
        }
    }
}

/// Waits until output is no longer blocked, or a nudge arrives.
pub(super) fn for_output(vcpus: &Vcpus, member: usize, blocked: &Blocked) {
    let (control, wake) = (&vcpus.control, vcpus.control.wake(member));
    // `poll` ignores a negative descriptor.
    let (output, timeout) = match blocked {
        Blocked::ByReader => match vcpus.console().blocked_on() {
            Some(output) => (output, None),
            None => return,
        },
        Blocked::For(time) => (-1, Some(nanoseconds(*time))),
        Blocked::At(_) => (-1, None),
    };
    control.set_waiting(member, true);
    // A gate nudges after it has opened: looked at only now, either of the two is seen.
    let opened = matches!(blocked, Blocked::At(gate) if gate.is_open() || gate.is_closed());
    if !opened && !control.pause_wanted() {
        let entry = |fd, events| libc::pollfd { fd, events, revents: 0 };
        let mut fds = [entry(wake.fd(), libc::POLLIN), entry(output, libc::POLLOUT)];
        poll(&mut fds, timeout);
        if fds[0].revents != 0 {
            wake.clear();
        }
    }
    control.set_waiting(member, false);
}

/// `ppoll`; after every outcome (a signal included) the caller checks again.
fn poll(fds: &mut [libc::pollfd], timeout_ns: Option<u64>) {
    let timeout = timeout_ns.map(|ns| libc::timespec {
        tv_sec: (ns / 1_000_000_000) as libc::time_t,
        tv_nsec: (ns % 1_000_000_000) as libc::c_long,
    });
    let timeout = timeout.as_ref().map_or(ptr::null(), ptr::from_ref);
    // SAFETY: the entries and the timeout are valid; on failure no entry has events.
    unsafe { libc::ppoll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, timeout, ptr::null()) };
}
