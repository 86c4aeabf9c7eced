//! Frames on their way out.
//!
//! They lie packed in a ring of bytes rather than in buffers of their own: a reply of a hundred
//! bytes then changes a hundred bytes of memory, and not a page, of which a move would have to send
//! the whole. When all is sent it starts over.

use super::header;
use crate::drivers::virtio::{
    memory::{PAGE, Shared},
    queue::Queue,
};
use alloc::collections::VecDeque;
use core::num::{NonZeroU16, NonZeroUsize};
use smoltcp::phy::{PacketMeta, TxToken};

/// Room for frames.
const ARENA: usize = 128 << 10;
/// Longest frame that is left to the device to cut into segments.
const SEGMENTS_MAX: usize = 32 << 10;
/// Frames begin at multiples of this.
const ALIGN: usize = 64;

/// A frame in the ring.
#[derive(Debug)]
struct Slot {
    id: u16,
    start: usize,
    sent: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Transmit {
    pub(super) queue: Queue,
    arena: Shared,
    /// In the order in which they lie in the ring.
    slots: VecDeque<Slot>,
    /// Where the next frame goes.
    next: usize,
    longest: usize,
    offload: bool,
    segments: bool,
}

impl Transmit {
    /// For frames up to `frame_max` bytes, and longer TCP `segments` if the device cuts them;
    /// `None` without memory.
    pub fn new(queue: Queue, frame_max: usize, offload: bool, segments: bool) -> Option<Self> {
        let longest = if segments { SEGMENTS_MAX.max(frame_max) } else { frame_max };
        let longest = (header::LEN + longest).next_multiple_of(ALIGN);
        let arena = Shared::new(ARENA)?;
        Some(Self { queue, arena, slots: VecDeque::new(), next: 0, longest, offload, segments })
    }

    /// Longest frame for the device to cut.
    pub fn segments_max(&self) -> Option<NonZeroUsize> {
        NonZeroUsize::new(if self.segments { SEGMENTS_MAX } else { 0 })
    }

    /// Takes back what has been sent.
    pub fn reclaim(&mut self) {
        while let Some((id, _)) = self.queue.peek() {
            self.queue.take();
            if let Some(slot) = self.slots.iter_mut().find(|slot| slot.id == id && !slot.sent) {
                slot.sent = true;
            }
        }
        while self.slots.front().is_some_and(|slot| slot.sent) {
            self.slots.pop_front();
        }
        if self.slots.is_empty() {
            self.next = 0;
        }
    }

    /// Where in the ring a frame of the greatest length can go.
    fn free_offset(&self) -> Option<usize> {
        let oldest = self.slots.front().map(|slot| slot.start);
        match oldest {
            None => Some(0),
            Some(oldest) if self.next > oldest => {
                if self.next + self.longest <= self.arena.len() {
                    Some(self.next)
                } else {
                    // Never up to the oldest: equal would mean empty.
                    (self.longest < oldest).then_some(0)
                }
            }
            Some(oldest) => (self.next + self.longest < oldest).then_some(self.next),
        }
    }

    /// Whether a frame of any length can be sent.
    pub fn has_room(&mut self) -> bool {
        if self.queue.has_room() && self.free_offset().is_some() && self.slots.len() < 16 {
            return true;
        }
        self.reclaim();
        let room = self.queue.has_room() && self.free_offset().is_some();
        // A sender may wait for room: then the device should interrupt when there is some.
        self.queue.want_interrupts(!room);
        room
    }

    /// Lets `fill` make a frame of `len` bytes, and gives it to the device.
    fn send<T>(
        &mut self,
        len: usize,
        segment: Option<u16>,
        fill: impl FnOnce(&mut [u8]) -> T,
    ) -> T {
        let start = self.free_offset().expect("`has_room` was asked before");
        let whole = header::LEN + len;
        assert!(whole <= self.longest, "a frame longer than the device's limit");
        // SAFETY: no slot that the device has covers this part of the arena, and `self` is
        // borrowed.
        let bytes = unsafe { core::slice::from_raw_parts_mut(self.arena.at(start, whole), whole) };
        let (head, frame) = bytes.split_at_mut(header::LEN);
        let result = fill(frame);
        head.copy_from_slice(&header::for_frame(frame, self.offload, segment));
        let physical = self.arena.physical(start);
        let id =
            self.queue.give(physical, whole as u32, false).expect("`has_room` was asked before");
        self.slots.push_back(Slot { id, start, sent: false });
        self.next = (start + whole).next_multiple_of(ALIGN);
        result
    }

    /// Calls `page` with the address of each page without a frame to be sent.
    pub fn empty_pages(&mut self, mut page: impl FnMut(usize)) {
        self.reclaim();
        if self.slots.is_empty() {
            let start = self.arena.physical(0) as usize;
            (start..start + self.arena.len()).step_by(PAGE).for_each(&mut page);
        }
    }
}

/// Room for a frame.
#[derive(Debug)]
pub struct Room<'a> {
    transmit: &'a mut Transmit,
    segment: Option<NonZeroU16>,
}

impl<'a> Room<'a> {
    pub(super) fn new(transmit: &'a mut Transmit) -> Self {
        Self { transmit, segment: None }
    }
}

impl TxToken for Room<'_> {
    fn consume<T, F: FnOnce(&mut [u8]) -> T>(self, len: usize, f: F) -> T {
        self.transmit.send(len, self.segment.map(NonZeroU16::get), f)
    }

    fn set_meta(&mut self, meta: PacketMeta) {
        self.segment = meta.segmentation_offload_size;
    }
}
