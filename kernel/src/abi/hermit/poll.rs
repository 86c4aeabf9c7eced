//! `poll`.

use super::errno::int;
use crate::{
    events,
    fd::{Errno, descriptors::MOST, poll},
    sched::readiness::Ready,
};
use core::slice;
use hermit_abi::{
    POLLERR, POLLHUP, POLLIN, POLLNVAL, POLLOUT, POLLRDHUP, POLLRDNORM, POLLWRNORM, errno, pollfd,
};

impl poll::Polled for pollfd {
    fn fd(&self) -> i32 {
        self.fd
    }

    fn found(&mut self, ready: Result<Ready, Errno>) -> bool {
        self.revents = match ready {
            // Left out by the caller.
            _ if self.fd < 0 => 0,
            Ok(ready) => events_of(ready, self.events),
            Err(_) => POLLNVAL,
        };
        self.revents != 0
    }
}

/// What is reported of `ready`: events that were asked for, and those that always are.
fn events_of(ready: Ready, asked: i16) -> i16 {
    let mut events = 0;
    if ready.readable {
        events |= POLLIN | POLLRDNORM;
    }
    if ready.writable {
        events |= POLLOUT | POLLWRNORM;
    }
    if ready.peer_closed {
        events |= POLLRDHUP;
    }
    events &= asked;
    if ready.hung_up {
        events |= POLLHUP;
    }
    if ready.error {
        events |= POLLERR;
    }
    events
}

#[unsafe(no_mangle)]
unsafe extern "C" fn sys_poll(at: *mut pollfd, count: usize, timeout_ms: i32) -> i32 {
    events::checkpoint();
    if count > MOST || count > 0 && (at.is_null() || !at.is_aligned()) {
        return int(Err(Errno(errno::EINVAL)));
    }
    let fds: &mut [pollfd] = if count == 0 {
        &mut []
    } else {
        // SAFETY: the caller's list, neither null nor too long.
        unsafe { slice::from_raw_parts_mut(at, count) }
    };
    let timeout_ns = u64::try_from(timeout_ms).ok().map(|ms| ms.saturating_mul(1_000_000));
    poll::poll(fds, timeout_ns) as i32
}
