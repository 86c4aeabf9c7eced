//! Waits of an operator's request.

use crate::vcpu::{Control, Phase};
use std::time::{Duration, Instant};

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

    /// Waits for something that usually takes a moment, as [`Control::wait_until`] does, and
    /// reports if it takes longer.
    pub(super) fn wait<T>(
        &mut self,
        control: &Control,
        what: &str,
        mut look: impl FnMut(&Phase, bool) -> Option<T>,
    ) -> T {
        let deadline = (!self.said).then(|| self.since + SLOW);
        if let Some(found) = control.wait_until(deadline, &mut look) {
            return found;
        }
        // The reader of the report may block this for any time: no lock is held.
        self.said = true;
        (self.say)(what);
        control.wait_until(None, look).expect("there is no deadline")
    }
}

impl std::fmt::Debug for Slow<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slow").field("since", &self.since).finish_non_exhaustive()
    }
}
