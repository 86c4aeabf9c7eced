//! Waiting, on the vCPU thread, for whatever concerns the guest.

use super::{
    machine::Machine,
    shared::{Exits, Shared},
};
use crate::devices::Violation;
use std::{ptr, time::Duration};

/// Serves the network and the console of a guest that waits. `None` if something reached it, its
/// deadline is over, or it is to look at a request.
pub(super) fn for_something(
    machine: &mut Machine,
    shared: &Shared,
    deadline: u64,
) -> Result<Option<WaitFor>, Violation> {
    // Announced before the last look at everything that a nudge can be about.
    shared.set_waiting(true);
    let wait_for = settle(machine, shared, deadline);
    match wait_for {
        Ok(Some(_)) if shared.stop_is_near() => machine.capture_early(),
        Ok(Some(_)) => {}
        _ => shared.set_waiting(false),
    }
    wait_for
}

/// How often a guest looks again that has more to send than its queue holds, while that is not
/// emptied. It asks to be woken at once, and could do nothing.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// What to wait for, when there is nothing to do.
#[derive(Debug)]
pub(super) struct WaitFor {
    /// The TAP, and what to poll it for.
    tap: Option<(i32, i16)>,
    /// Nanoseconds, or for ever.
    timeout: Option<u64>,
}

/// Does what there is to do; `None` if that concerns the guest.
fn settle(
    machine: &mut Machine,
    shared: &Shared,
    deadline: u64,
) -> Result<Option<WaitFor>, Violation> {
    let (mut tap, mut refill, mut stuck) = (None, None, false);
    if let Some(net) = &mut machine.net {
        let moved = net.pass(&machine.ram)?;
        if moved.received > 0 || moved.more {
            return Ok(None);
        }
        // Without a buffer to put it in, a packet is no reason to wake up: the guest must first
        // give one. Nor is one that it may not have yet.
        let packets =
            if moved.no_buffers || moved.receive_wait.is_some() { 0 } else { libc::POLLIN };
        refill = [moved.send_wait, moved.receive_wait].into_iter().flatten().min();
        stuck = moved.blocked || moved.send_wait.is_some();
        let room = if moved.blocked { libc::POLLOUT } else { 0 };
        tap = Some((net.tap().fd(), packets | room)).filter(|(_, events)| *events != 0);
    }
    if machine.rings.fill(&machine.ram, &shared.console)? {
        return Ok(None);
    }
    if shared.pause_wanted() || shared.quiesce_wanted() || shared.look_wanted() {
        return Ok(None);
    }
    let refill = refill.map(nanoseconds);
    let timeout = match machine.clock.until(deadline) {
        Some(0) if stuck && !std::mem::replace(&mut machine.stuck, true) => {
            Some(nanoseconds(LOOK_AGAIN))
        }
        Some(0) => return Ok(None),
        timeout => timeout,
    };
    Ok(Some(WaitFor { tap, timeout: [timeout, refill].into_iter().flatten().min() }))
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl WaitFor {
    /// Waits. Whoever does must not hold the machine.
    pub(super) fn wait(&self, shared: &Shared) {
        Exits::count(&shared.exits.slept);
        let entry = |fd, events| libc::pollfd { fd, events, revents: 0 };
        // A negative descriptor is one that poll passes over.
        let (tap, events) = self.tap.unwrap_or((-1, 0));
        let mut fds = [entry(shared.wake_fd(), libc::POLLIN), entry(tap, events)];
        poll(&mut fds, self.timeout);
        shared.set_waiting(false);
        if fds[0].revents != 0 {
            shared.clear_wake();
        }
    }
}

/// Waits until standard output takes more, or if the guest is `held` back until that is over, or a
/// nudge.
pub(super) fn for_output(shared: &Shared, held: Option<Duration>) {
    let output = match (held, shared.console.blocked_on()) {
        // A negative descriptor is one that poll passes over.
        (Some(_), _) => -1,
        (None, Some(output)) => output,
        (None, None) => return,
    };
    shared.set_waiting(true);
    if !shared.pause_wanted() {
        let entry = |fd, events| libc::pollfd { fd, events, revents: 0 };
        let mut fds = [entry(shared.wake_fd(), libc::POLLIN), entry(output, libc::POLLOUT)];
        poll(&mut fds, held.map(nanoseconds));
        if fds[0].revents != 0 {
            shared.clear_wake();
        }
    }
    shared.set_waiting(false);
}

/// `ppoll`, whose every outcome (a signal included) makes the caller look again.
fn poll(fds: &mut [libc::pollfd], timeout_ns: Option<u64>) {
    let timeout = timeout_ns.map(|ns| libc::timespec {
        tv_sec: (ns / 1_000_000_000) as libc::time_t,
        tv_nsec: (ns % 1_000_000_000) as libc::c_long,
    });
    let timeout = timeout.as_ref().map_or(ptr::null(), ptr::from_ref);
    // SAFETY: the entries and the timeout are valid; on failure no entry has events.
    unsafe { libc::ppoll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, timeout, ptr::null()) };
}
