//! A deadline for work in another thread, which may hang in the storage for as long as that does.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Instant,
};

const WAITING: u8 = 0;
const CHANGING: u8 = 1;
const ABANDONED: u8 = 2;

/// Shared by the thread that works and the one that waits: exactly one of *the change begins* and
/// *the change never happens* is decided, before the deadline or at it.
#[derive(Clone, Debug)]
pub struct Intent {
    state: Arc<AtomicU8>,
    deadline: Instant,
}

impl Intent {
    pub fn new(deadline: Instant) -> Self {
        Self { state: Arc::new(AtomicU8::new(WAITING)), deadline }
    }

    /// The worker, just before it changes something: whether it may. No longer after the deadline.
    pub fn begin(&self) -> bool {
        Instant::now() < self.deadline && self.decide(CHANGING)
    }

    /// The waiting side, at the deadline: whether nothing is changed, now or later.
    pub fn abandon(&self) -> bool {
        self.decide(ABANDONED)
    }

    /// Whether it makes no sense to start any more.
    pub fn is_over(&self) -> bool {
        self.state.load(Ordering::Acquire) == ABANDONED || Instant::now() >= self.deadline
    }

    fn decide(&self, to: u8) -> bool {
        let decided = self.state.compare_exchange(WAITING, to, Ordering::AcqRel, Ordering::Acquire);
        decided.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_change_begins_or_never_happens() {
        let soon = || Intent::new(Instant::now() + Duration::from_secs(60));
        let begun = soon();
        assert!(begun.begin() && !begun.abandon() && !begun.is_over());
        let abandoned = soon();
        assert!(abandoned.abandon() && !abandoned.begin() && abandoned.is_over());
        let late = Intent::new(Instant::now());
        assert!(!late.begin() && late.is_over() && late.abandon());
    }
}
