//! Counters that threads wait for.

use super::{
    errno::{Errno, int},
    fd::{self, Object},
};
use crate::events;
use crate::sched::readiness::{Ready, Waits};
use alloc::rc::Rc;
use core::cell::Cell;
use hermit_abi::{EFD_CLOEXEC, EFD_NONBLOCK, EFD_SEMAPHORE, errno};

/// Largest value, as on Linux: one below the largest number.
const MOST: u64 = u64::MAX - 1;

/// A counter: what is written is added, a read takes all of it, or one if it is a semaphore.
#[derive(Debug)]
pub struct EventFd {
    count: Cell<u64>,
    semaphore: bool,
    /// Who waits for it.
    pub waits: Rc<Waits>,
}

impl EventFd {
    /// What it is ready for.
    pub fn ready(&self) -> Ready {
        let count = self.count.get();
        Ready { readable: count > 0, writable: count < MOST, ..Ready::default() }
    }

    /// Reads the count.
    pub fn read(&self, to: &mut [u8], nonblocking: bool) -> Result<usize, Errno> {
        let Some(to) = to.first_chunk_mut() else { return Err(Errno(errno::EINVAL)) };
        loop {
            let count = self.count.get();
            if count > 0 {
                let taken = if self.semaphore { 1 } else { count };
                self.count.set(count - taken);
                *to = taken.to_ne_bytes();
                self.waits.wake(Ready { readable: false, ..self.ready() }, false);
                return Ok(to.len());
            }
            if nonblocking {
                return Err(Errno(errno::EAGAIN));
            }
            self.waits.readers.wait(None);
        }
    }

    /// Adds to the count.
    pub fn write(&self, from: &[u8], nonblocking: bool) -> Result<usize, Errno> {
        let Some(&from) = from.first_chunk() else { return Err(Errno(errno::EINVAL)) };
        let more = u64::from_ne_bytes(from);
        if more > MOST {
            return Err(Errno(errno::EINVAL));
        }
        loop {
            let sum = self.count.get().checked_add(more).filter(|&sum| sum <= MOST);
            if let Some(sum) = sum {
                self.count.set(sum);
                self.waits.wake(Ready { writable: false, ..self.ready() }, false);
                return Ok(from.len());
            }
            if nonblocking {
                return Err(Errno(errno::EAGAIN));
            }
            self.waits.writers.wait(None);
        }
    }
}

#[unsafe(no_mangle)]
extern "C" fn sys_eventfd(initial: u64, flags: i16) -> i32 {
    events::checkpoint();
    if flags & !(EFD_NONBLOCK | EFD_SEMAPHORE | EFD_CLOEXEC) != 0 || initial > MOST {
        return int(Err(Errno(errno::EINVAL)));
    }
    let event = EventFd {
        count: Cell::new(initial),
        semaphore: flags & EFD_SEMAPHORE != 0,
        waits: Rc::default(),
    };
    int(fd::open(Object::Event(event), flags & EFD_NONBLOCK != 0))
}
