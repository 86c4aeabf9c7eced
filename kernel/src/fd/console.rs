//! Standard input, output and error: the console.

use super::Errno;
use crate::{
    cpu::KernelCell,
    platform::{self, CONSOLE_READABLE, ConsoleRead},
    sched::{
        self, WaitQueue,
        readiness::{Ready, Waits},
    },
};
use alloc::rc::Rc;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use hermit_abi::errno;

/// Reads what has been typed; waits until there is something, or the end.
pub fn read(to: &mut [u8], nonblocking: bool) -> Result<usize, Errno> {
    if to.is_empty() {
        return Ok(0);
    }
    loop {
        match platform::console_read(to) {
            ConsoleRead::Bytes(n) => return Ok(n),
            ConsoleRead::End => return Ok(0),
            ConsoleRead::Empty if nonblocking => return Err(Errno(errno::EAGAIN)),
            ConsoleRead::Empty => {
                CONSOLE_READABLE.wait(None);
            }
        }
    }
}

/// Prints.
pub fn write(from: &[u8]) -> usize {
    platform::console_write(from);
    from.len()
}

/// Whether [`read`] would not wait.
pub fn readable() -> bool {
    platform::console_readable()
}

/// Threads in `poll` that wait for the console too.
static POLLERS: KernelCell<Option<Rc<Waits>>> = KernelCell::new(None);
/// There are such threads, and they have not been called.
static POLLED: AtomicBool = AtomicBool::new(false);
/// Where the watcher waits for such threads.
static WATCHER: WaitQueue = WaitQueue::new();
/// Stack of the watcher, bytes.
const WATCHER_STACK: usize = 16 << 10;

/// Where to wait for the console together with other things.
pub fn waits() -> Rc<Waits> {
    POLLED.store(true, Relaxed);
    WATCHER.wake_one();
    let (waits, new) = POLLERS.with(|waits| {
        let new = waits.is_none();
        (Rc::clone(waits.get_or_insert_default()), new)
    });
    if new {
        // Without memory for it, pollers see the console when something else calls them.
        let _started = sched::spawn(watch, 0, WATCHER_STACK);
    }
    waits
}

/// Calls pollers when threads that wait for the console alone are woken.
extern "C" fn watch(_: usize) {
    loop {
        while !POLLED.load(Relaxed) {
            WATCHER.wait(None);
        }
        if !platform::console_readable() {
            CONSOLE_READABLE.wait(None);
        }
        POLLED.store(false, Relaxed);
        if let Some(waits) = POLLERS.with(|waits| waits.clone()) {
            waits.wake(Ready { readable: true, ..Ready::default() }, false);
        }
    }
}
