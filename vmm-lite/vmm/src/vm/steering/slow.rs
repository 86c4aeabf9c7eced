//! Waits of an operator's request.

use super::Control;
use crate::vm::shared::Shared;
use std::{
    sync::MutexGuard,
    time::{Duration, Instant},
};

/// How long a request may wait before it reports why.
const SLOW: Duration = Duration::from_millis(500);

/// A wait of an operator's request: reports what it waits for if that takes too long.
pub struct Slow<'a> {
    since: Instant,
    said: bool,
    say: &'a mut dyn FnMut(&str),
}

impl<'a> Slow<'a> {
    /// A wait that begins now; `say` is called once, after [`SLOW`].
    pub fn new(say: &'a mut dyn FnMut(&str)) -> Self {
        Self { since: Instant::now(), said: false, say }
    }

    fn left(&self) -> Option<Duration> {
        (!self.said).then(|| SLOW.saturating_sub(self.since.elapsed()))
    }

    fn is_over(&self) -> bool {
        !self.said && self.since.elapsed() >= SLOW
    }

    fn say(&mut self, what: &str) {
        self.said = true;
        (self.say)(what);
    }
}

impl std::fmt::Debug for Slow<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slow").field("since", &self.since).finish_non_exhaustive()
    }
}

impl Shared {
    /// Waits for something that usually takes a moment, and reports if it takes longer.
    pub(in crate::vm) fn wait_slowly<'s>(
        &'s self,
        control: MutexGuard<'s, Control>,
        slow: &mut Slow<'_>,
        what: &str,
    ) -> MutexGuard<'s, Control> {
        let control = self.wait_changed(control, slow.left());
        if !slow.is_over() {
            return control;
        }
        // The reader of the report may block this for any time, so the lock is released.
        drop(control);
        slow.say(what);
        self.lock_control()
    }
}
