//! Counters that threads wait for.

use super::Errno;
use crate::sched::readiness::{Ready, Waits};
use alloc::rc::Rc;
use core::cell::Cell;
use hermit_abi::errno;

/// Largest value, as on Linux: one below the largest number.
const MOST: u64 = u64::MAX - 1;

/// A counter: what is written is added, a read takes all of it, or one if it is a semaphore.
#[derive(Debug)]
pub struct EventFd {
    count: Cell<u64>,
    semaphore: bool,
    waits: Rc<Waits>,
}

impl EventFd {
    /// A counter that starts at `initial`.
    ///
    /// # Errors
    /// `EINVAL` for a count that is too large.
    pub fn new(initial: u64, semaphore: bool) -> Result<Self, Errno> {
        if initial > MOST {
            return Err(Errno(errno::EINVAL));
        }
        Ok(Self { count: Cell::new(initial), semaphore, waits: Rc::default() })
    }

    /// The threads that wait for it.
    pub fn waits(&self) -> &Rc<Waits> {
        &self.waits
    }

    /// What it is ready for.
    pub fn ready(&self) -> Ready {
        let count = self.count.get();
        Ready { readable: count > 0, writable: count < MOST, ..Ready::default() }
    }

    /// Reads the count into the first 8 bytes of `to`; waits for one that is not 0.
    ///
    /// # Errors
    /// `EINVAL` if `to` is shorter, `EAGAIN` where it would have to wait and must not.
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

    /// Adds the first 8 bytes of `from` to the count; waits until there is room for them.
    ///
    /// # Errors
    /// `EINVAL` if `from` is shorter or too large, `EAGAIN` where it would have to wait and must
    /// not.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn read(event: &EventFd) -> Result<u64, Errno> {
        let mut bytes = [0; 8];
        event.read(&mut bytes, true).map(|_| u64::from_ne_bytes(bytes))
    }

    #[test]
    fn a_read_takes_all_of_a_counter_and_one_of_a_semaphore() {
        let (counter, semaphore) =
            (EventFd::new(3, false).unwrap(), EventFd::new(2, true).unwrap());
        assert_eq!(counter.write(&4_u64.to_ne_bytes(), true), Ok(8));
        assert_eq!(read(&counter), Ok(7));
        assert_eq!(read(&counter), Err(Errno(errno::EAGAIN)));
        assert_eq!([read(&semaphore), read(&semaphore)], [Ok(1), Ok(1)]);
        assert!(!semaphore.ready().readable);
    }

    #[test]
    fn a_full_counter_takes_no_more() {
        assert_eq!(EventFd::new(u64::MAX, false).err(), Some(Errno(errno::EINVAL)));
        let counter = EventFd::new(MOST, false).unwrap();
        assert!(!counter.ready().writable);
        assert_eq!(counter.write(&1_u64.to_ne_bytes(), true), Err(Errno(errno::EAGAIN)));
        assert_eq!(counter.write(&u64::MAX.to_ne_bytes(), true), Err(Errno(errno::EINVAL)));
        assert_eq!(counter.write(&[1; 7], true), Err(Errno(errno::EINVAL)));
    }
}
