//! Counters of the guest's exits, by kind.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The counters; `ExitCounts` of the statistics says what each counts.
#[derive(Debug, Default)]
pub(crate) struct Exits {
    pub doorbell: AtomicU64,
    pub wait: AtomicU64,
    pub slept: AtomicU64,
    pub net: AtomicU64,
    pub console: AtomicU64,
    pub mmio: AtomicU64,
    pub kicked: AtomicU64,
    pub quiesced: AtomicU64,
}

impl Exits {
    pub fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Relaxed);
    }
}
