//! `poll`: waiting for many things at once.

use super::{
    errno::{Errno, int},
    fd::{Object, with_table},
};
use crate::events;
use crate::{
    cpu::KernelCell,
    net::AwaitsNetwork,
    platform,
    sched::readiness::{Poller, Ready, Waits},
    sched::{self, WaitQueue},
    time,
};
use alloc::{rc::Rc, vec::Vec};
use core::{
    slice,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};
use hermit_abi::{
    POLLERR, POLLHUP, POLLIN, POLLNVAL, POLLOUT, POLLRDHUP, POLLRDNORM, POLLWRNORM, errno, pollfd,
};

/// Threads in `poll` to which the console matters.
static CONSOLE: KernelCell<Option<Rc<Waits>>> = KernelCell::new(None);
/// There are such, and they have not been called.
static CONSOLE_WANTED: AtomicBool = AtomicBool::new(false);
/// Where the watcher waits for them.
static WATCHER: WaitQueue = WaitQueue::new();

/// Where to wait for the console together with other things.
fn console_waits() -> Rc<Waits> {
    CONSOLE_WANTED.store(true, Relaxed);
    WATCHER.wake_one();
    let (waits, new) = CONSOLE.with(|waits| {
        let new = waits.is_none();
        (Rc::clone(waits.get_or_insert_default()), new)
    });
    if new {
        // Without memory for it, pollers see the console when something else calls them.
        let _started = sched::spawn(watch_console, 0, 16 << 10);
    }
    waits
}

/// Hands on what those are told who wait for the console alone.
extern "C" fn watch_console(_: usize) {
    loop {
        while !CONSOLE_WANTED.load(Relaxed) {
            WATCHER.wait(None);
        }
        if !platform::console_readable() {
            platform::CONSOLE_READABLE.wait(None);
        }
        CONSOLE_WANTED.store(false, Relaxed);
        if let Some(waits) = CONSOLE.with(|waits| waits.clone()) {
            waits.wake(Ready { readable: true, ..Ready::default() }, false);
        }
    }
}

/// Of what is ready, that which was asked for, and what is always told.
fn events(ready: Ready, asked: i16) -> i16 {
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

/// Fills in what each is ready for; how many are for anything.
fn look(fds: &mut [pollfd]) -> usize {
    with_table(|table| {
        let mut count = 0;
        for entry in fds {
            entry.revents = match table.get(entry.fd) {
                _ if entry.fd < 0 => 0,
                Ok(description) => events(description.ready(), entry.events),
                Err(_) => POLLNVAL,
            };
            count += usize::from(entry.revents != 0);
        }
        count
    })
}

/// Where to wait for each of `fds`, and whether the network is among it.
fn waits_of(fds: &[pollfd]) -> (Vec<Rc<Waits>>, bool) {
    let (mut console, mut network) = (false, false);
    let mut waits: Vec<Rc<Waits>> = with_table(|table| {
        let mut waits = |entry: &pollfd| {
            let description = table.get(entry.fd).ok()?;
            console |= matches!(description.object, Object::Stdin);
            network |= matches!(description.object, Object::Socket(_));
            description.waits().cloned()
        };
        fds.iter().filter_map(&mut waits).collect()
    });
    if console {
        waits.push(console_waits());
    }
    (waits, network)
}

fn poll(fds: &mut [pollfd], timeout_ms: i32) -> usize {
    let deadline = u64::try_from(timeout_ms)
        .ok()
        .map(|ms| time::now_ns().saturating_add(ms.saturating_mul(1_000_000)));
    let ready = look(fds);
    if ready > 0 || timeout_ms == 0 {
        return ready;
    }
    let poller = Rc::new(Poller::default());
    let (waits, network) = waits_of(fds);
    waits.iter().for_each(|waits| waits.add(&poller));
    let _awaits = network.then(AwaitsNetwork::begin);
    let ready = loop {
        let wake = poller.wait(deadline);
        let ready = look(fds);
        if ready > 0 || wake == sched::Wake::TimedOut {
            break ready;
        }
    };
    waits.iter().for_each(|waits| waits.remove(&poller));
    ready
}

#[unsafe(no_mangle)]
unsafe extern "C" fn sys_poll(at: *mut pollfd, count: usize, timeout_ms: i32) -> i32 {
    events::checkpoint();
    if count > crate::fd::descriptors::MOST || count > 0 && (at.is_null() || !at.is_aligned()) {
        return int(Err(Errno(errno::EINVAL)));
    }
    let fds: &mut [pollfd] = if count == 0 {
        &mut []
    } else {
        // SAFETY: the caller's list, neither null nor too long.
        unsafe { slice::from_raw_parts_mut(at, count) }
    };
    poll(fds, timeout_ms) as i32
}
