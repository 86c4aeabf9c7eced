//! How a journal is written.

use crate::format::batch::PAYLOAD_MAX;
use std::time::Duration;

/// When records are made durable. They are always written at once, so a process that dies loses
/// none that were [written](crate::Event::Written).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SyncPolicy {
    /// As soon as they are written. What is appended during a sync goes with the next one.
    #[default]
    Always,
    /// After this time at the latest: a power cut loses no more than that, and what the disk takes
    /// to sync.
    Every(Duration),
    /// When the host likes; and when a segment is finished, with each snapshot, and at the end.
    Never,
}

/// How a journal is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// When records are made durable.
    pub sync: SyncPolicy,
    /// Size at which a segment is finished and the next begun, in bytes. The space is reserved when
    /// a segment is begun.
    pub segment_size: u64,
    /// How many bytes may wait for the writer thread before `append` blocks; the journal uses about
    /// three times as much memory. At most 16 MiB.
    pub buffer: usize,
    /// Whether batches are compressed where that pays.
    pub compress: bool,
}

impl Default for Options {
    fn default() -> Self {
        let (segment_size, buffer) = (64 << 20, 4 << 20);
        Self { sync: SyncPolicy::Always, segment_size, buffer, compress: true }
    }
}

impl Options {
    /// With what cannot be brought into its range.
    pub(super) fn in_range(self) -> Self {
        Self {
            segment_size: self.segment_size.clamp(4 << 10, 1 << 40),
            buffer: self.buffer.clamp(1, PAYLOAD_MAX),
            ..self
        }
    }
}
