//! Packets that the source of a move forwards, until the guest accepts them.

use super::backend::VNET_HEADER;
use std::{
    collections::VecDeque,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

/// Limit in bytes for forwarded packets that a guest has not accepted: what a peer sends is bounded
/// (rule R4).
const BYTES_MAX: usize = 4 << 20;

/// Packets that reached the source's TAP and were forwarded; another thread adds them.
#[derive(Debug, Default)]
pub struct Forwarded {
    frames: Mutex<Frames>,
    some: AtomicBool,
}

#[derive(Debug, Default)]
struct Frames {
    queue: VecDeque<Vec<u8>>,
    bytes: usize,
}

impl Forwarded {
    fn frames(&self) -> MutexGuard<'_, Frames> {
        self.frames.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a frame with its virtio-net header. `false` if there are too many already, or it is not
    /// a frame.
    pub fn push(&self, frame: Vec<u8>) -> bool {
        let mut frames = self.frames();
        if frames.bytes + frame.len() > BYTES_MAX || frame.len() <= VNET_HEADER {
            return false;
        }
        frames.bytes += frame.len();
        frames.queue.push_back(frame);
        self.some.store(true, SeqCst);
        true
    }

    /// The next frame.
    pub(super) fn pop(&self) -> Option<Vec<u8>> {
        if !self.any() {
            return None;
        }
        let mut frames = self.frames();
        let frame = frames.queue.pop_front();
        frames.bytes -= frame.as_ref().map_or(0, Vec::len);
        self.some.store(!frames.queue.is_empty(), SeqCst);
        frame
    }

    /// Whether there are any.
    #[must_use]
    pub fn any(&self) -> bool {
        self.some.load(SeqCst)
    }
}
