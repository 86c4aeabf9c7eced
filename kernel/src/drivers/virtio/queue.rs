//! A split virtqueue whose buffers are one descriptor each (virtio 1.2, 2.7).
//!
//! What the device writes is checked: an entry that it never had is ignored, and a length longer
//! than the buffer is cut.

use super::memory::Shared;
use core::sync::atomic::{AtomicU16, AtomicU32, Ordering, fence};

/// Descriptors a queue has at most: with these, all its tables fit a page.
pub const SIZE_MAX: u16 = 128;

const DEVICE_WRITES: u16 = 2;
const NO_INTERRUPT: u16 = 1;
const NO_NOTIFY: u16 = 1;

/// Offsets of the tables in the queue's page.
fn available(size: usize) -> usize {
    16 * size
}

fn used(size: usize) -> usize {
    (available(size) + 6 + 2 * size).next_multiple_of(4)
}

/// See the module.
#[derive(Debug)]
pub struct Queue {
    tables: Shared,
    size: u16,
    /// Descriptors that are the driver's.
    free: alloc::vec::Vec<u16>,
    /// Those that are the device's, with the room each gives.
    room: alloc::vec::Vec<u32>,
    available: u16,
    used: u16,
    announced: u16,
}

/// No room: the driver has the descriptor.
const OURS: u32 = u32::MAX;

impl Queue {
    /// Of `size` descriptors, a power of two; `None` without memory.
    pub fn new(size: u16) -> Option<Self> {
        let n = usize::from(size);
        let tables = Shared::new(used(n) + 6 + 8 * n)?;
        let free = (0..size).rev().collect();
        let room = alloc::vec![OURS; n];
        Some(Self { tables, size, free, room, available: 0, used: 0, announced: 0 })
    }

    /// Addresses of descriptor table, available ring and used ring.
    pub fn addresses(&self) -> [u64; 3] {
        let n = usize::from(self.size);
        [0, available(n), used(n)].map(|offset| self.tables.physical(offset))
    }

    /// Number of descriptors.
    pub fn size(&self) -> u16 {
        self.size
    }

    fn word(&self, offset: usize) -> &AtomicU16 {
        // SAFETY: in the tables, even, and only ever accessed atomically by this side.
        unsafe { AtomicU16::from_ptr(self.tables.at(offset, 2).cast()) }
    }

    fn double_word(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: in the tables, a multiple of four, and only ever accessed atomically by this
        // side.
        unsafe { AtomicU32::from_ptr(self.tables.at(offset, 4).cast()) }
    }

    fn ring(&self, at: u16) -> usize {
        usize::from(at & (self.size - 1))
    }

    /// Whether a buffer can be given to the device.
    pub fn has_room(&self) -> bool {
        !self.free.is_empty()
    }

    /// The descriptor that [`give`](Self::give) uses next.
    pub fn next_free(&self) -> Option<u16> {
        self.free.last().copied()
    }

    /// Whether there is something that [`should_notify`](Self::should_notify) has not been asked
    /// about.
    pub fn has_news(&self) -> bool {
        self.announced != self.available
    }

    /// Descriptors of buffers that the device is done with and that have not been taken back.
    pub fn done(&mut self) -> alloc::vec::Vec<u16> {
        let ring = used(self.size.into());
        let end = u16::from_le(self.word(ring + 2).load(Ordering::Acquire));
        let count = end.wrapping_sub(self.used).min(self.size);
        (0..count)
            .map(|n| {
                let slot = ring + 4 + 8 * self.ring(self.used.wrapping_add(n));
                u32::from_le(self.double_word(slot).load(Ordering::Relaxed)) as u16
            })
            .collect()
    }

    /// Buffers that are the device's.
    pub fn under_way(&self) -> usize {
        usize::from(self.size) - self.free.len()
    }

    /// Gives the device `len` bytes at `address`, to read or to write. Returns the descriptor's
    /// number.
    pub fn give(&mut self, address: u64, len: u32, device_writes: bool) -> Option<u16> {
        let id = self.free.pop()?;
        let at = 16 * usize::from(id);
        for (n, part) in [address as u32, (address >> 32) as u32, len].into_iter().enumerate() {
            self.double_word(at + 4 * n).store(part.to_le(), Ordering::Relaxed);
        }
        let flags = if device_writes { DEVICE_WRITES } else { 0 };
        self.word(at + 12).store(flags.to_le(), Ordering::Relaxed);
        self.room[usize::from(id)] = if device_writes { len } else { 0 };
        let ring = available(self.size.into());
        let slot = ring + 4 + 2 * self.ring(self.available);
        self.word(slot).store(id.to_le(), Ordering::Relaxed);
        self.available = self.available.wrapping_add(1);
        self.word(ring + 2).store(self.available.to_le(), Ordering::Release);
        Some(id)
    }

    /// The next buffer that the device is done with: its descriptor and how much was written. It
    /// stays until [`take`](Self::take).
    pub fn peek(&mut self) -> Option<(u16, u32)> {
        let ring = used(self.size.into());
        while u16::from_le(self.word(ring + 2).load(Ordering::Acquire)) != self.used {
            let slot = ring + 4 + 8 * self.ring(self.used);
            let id = u32::from_le(self.double_word(slot).load(Ordering::Relaxed));
            let len = u32::from_le(self.double_word(slot + 4).load(Ordering::Relaxed));
            match self.room.get(id as usize) {
                Some(&room) if room != OURS => return Some((id as u16, len.min(room))),
                // Not a buffer that the device had.
                _ => self.used = self.used.wrapping_add(1),
            }
        }
        None
    }

    /// Takes back the buffer that [`peek`](Self::peek) showed.
    pub fn take(&mut self) {
        if let Some((id, _)) = self.peek() {
            self.used = self.used.wrapping_add(1);
            self.room[usize::from(id)] = OURS;
            self.free.push(id);
        }
    }

    /// Whether the device wants a notification for what it has been given since the last call.
    pub fn should_notify(&mut self) -> bool {
        if self.announced == self.available {
            return false;
        }
        self.announced = self.available;
        // The index must be written before the flag is read, or both sides could miss each other.
        fence(Ordering::SeqCst);
        let flags = u16::from_le(self.word(used(self.size.into())).load(Ordering::Relaxed));
        flags & NO_NOTIFY == 0
    }

    /// Whether the device should send an interrupt for buffers that it is done with.
    pub fn want_interrupts(&mut self, want: bool) {
        let flags = if want { 0 } else { NO_INTERRUPT };
        self.word(available(self.size.into())).store(flags.to_le(), Ordering::SeqCst);
    }
}

#[cfg(test)]
pub mod device {
    //! The device's side of a queue.

    use super::*;
    use std::vec::Vec;

    /// Serves a queue by its addresses, as a device does.
    #[derive(Debug)]
    pub struct Served {
        pub tables: [u64; 3],
        pub size: u16,
        pub seen: u16,
        pub done: u16,
    }

    impl Served {
        pub fn new(tables: [u64; 3], size: u16) -> Self {
            Self { tables, size, seen: 0, done: 0 }
        }

        fn word(&self, table: usize, offset: usize) -> &AtomicU16 {
            // SAFETY: the tests keep the queue, and with it its tables, while this is used.
            unsafe { AtomicU16::from_ptr((self.tables[table] as usize + offset) as *mut u16) }
        }

        /// The next buffer: descriptor, address, length, whether it is to be written.
        pub fn next(&mut self) -> Option<(u16, usize, usize, bool)> {
            if self.word(1, 2).load(Ordering::Acquire) == self.seen {
                return None;
            }
            let slot = 4 + 2 * usize::from(self.seen % self.size);
            let id = self.word(1, slot).load(Ordering::Relaxed);
            self.seen = self.seen.wrapping_add(1);
            let at = 16 * usize::from(id);
            let words: Vec<u64> =
                (0..8).map(|n| self.word(0, at + 2 * n).load(Ordering::Relaxed).into()).collect();
            let address = words[0] | words[1] << 16 | words[2] << 32 | words[3] << 48;
            let len = words[4] | words[5] << 16;
            Some((id, address as usize, len as usize, words[6] & 2 != 0))
        }

        /// Hands a buffer back.
        pub fn complete(&mut self, id: u32, len: u32) {
            let slot = 4 + 8 * usize::from(self.done % self.size);
            for (n, part) in [id as u16, (id >> 16) as u16, len as u16, (len >> 16) as u16]
                .into_iter()
                .enumerate()
            {
                self.word(2, slot + 2 * n).store(part, Ordering::Relaxed);
            }
            self.done = self.done.wrapping_add(1);
            self.word(2, 2).store(self.done, Ordering::Release);
        }

        pub fn set_no_notify(&self, yes: bool) {
            self.word(2, 0).store(yes.into(), Ordering::Relaxed);
        }

        pub fn wants_interrupts(&self) -> bool {
            self.word(1, 0).load(Ordering::Relaxed) == 0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{device::Served, *};

    fn pair(size: u16) -> (Queue, Served) {
        let queue = Queue::new(size).unwrap();
        let served = Served::new(queue.addresses(), size);
        (queue, served)
    }

    #[test]
    fn buffers_go_round_the_ring() {
        let (mut queue, mut device) = pair(4);
        for round in 0..70_000_u32 {
            let id = queue.give(0x1234_5678_9abc + u64::from(round), 100, true).unwrap();
            let (seen, address, len, writes) = device.next().unwrap();
            assert_eq!((seen, len, writes), (id, 100, true));
            assert_eq!(address as u64, 0x1234_5678_9abc + u64::from(round));
            assert_eq!(queue.peek(), None);
            device.complete(id.into(), 60);
            assert_eq!(queue.peek(), Some((id, 60)));
            assert_eq!(queue.peek(), Some((id, 60)));
            queue.take();
            assert_eq!(queue.peek(), None);
        }
    }

    #[test]
    fn a_full_queue_takes_no_more_until_one_is_back() {
        let (mut queue, mut device) = pair(4);
        let ids: alloc::vec::Vec<u16> = (0..4).map(|n| queue.give(n, 1, false).unwrap()).collect();
        assert!(!queue.has_room());
        assert_eq!(queue.give(9, 1, false), None);
        device.complete(ids[2].into(), 0);
        queue.take();
        assert_eq!(queue.give(9, 1, false), Some(ids[2]));
        assert_eq!(queue.under_way(), 4);
    }

    #[test]
    fn invalid_used_entries_are_ignored() {
        let (mut queue, mut device) = pair(4);
        let id = queue.give(1, 50, true).unwrap();
        device.complete(77, 1);
        device.complete(u32::from(id) + 1, 1);
        device.complete(id.into(), 5000);
        assert_eq!(queue.peek(), Some((id, 50)));
        queue.take();
        device.complete(id.into(), 1);
        assert_eq!(queue.peek(), None, "it was given back already");
        assert_eq!(queue.under_way(), 0);
    }

    #[test]
    fn notifications_are_asked_for_once_and_only_if_wanted() {
        let (mut queue, device) = pair(4);
        assert!(!queue.should_notify());
        queue.give(1, 1, false).unwrap();
        assert!(queue.should_notify());
        assert!(!queue.should_notify());
        device.set_no_notify(true);
        queue.give(1, 1, false).unwrap();
        assert!(!queue.should_notify());
        queue.want_interrupts(false);
        assert!(!device.wants_interrupts());
        queue.want_interrupts(true);
        assert!(device.wants_interrupts());
    }

    #[test]
    fn the_tables_of_the_largest_queue_fit_a_page() {
        let (queue, _) = pair(SIZE_MAX);
        assert_eq!(queue.tables.len(), crate::drivers::virtio::memory::PAGE);
    }
}
