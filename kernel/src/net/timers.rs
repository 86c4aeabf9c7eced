//! When each socket is to be checked again.
//!
//! A socket has one entry at most. An entry may be early: moving it back each time that a segment
//! restarts a retransmission timer would cost more than one check that finds nothing to do.

use super::SocketId;
use alloc::{collections::BTreeSet, vec::Vec};
use smoltcp::time::Instant;

/// See the module.
#[derive(Debug, Default)]
pub struct Timers {
    queue: BTreeSet<(Instant, SocketId)>,
}

impl Timers {
    /// Makes `id`, whose entry is `slot`, due at `at` or before.
    pub fn at_latest(&mut self, id: SocketId, slot: &mut Option<Instant>, at: Instant) {
        match *slot {
            Some(earlier) if earlier <= at => return,
            Some(later) => {
                self.queue.remove(&(later, id));
            }
            None => {}
        }
        self.queue.insert((at, id));
        *slot = Some(at);
    }

    /// Forgets `id`, whose entry is `slot`.
    pub fn cancel(&mut self, id: SocketId, slot: &mut Option<Instant>) {
        if let Some(at) = slot.take() {
            self.queue.remove(&(at, id));
        }
    }

    /// Takes out all that are due, into `due`. The owners' slots are for the caller to clear.
    pub fn take_due(&mut self, now: Instant, due: &mut Vec<SocketId>) {
        while let Some(&(at, id)) = self.queue.first()
            && at <= now
        {
            self.queue.pop_first();
            due.push(id);
        }
    }

    /// The next one.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.queue.first().map(|&(at, _)| at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_moves_forward_only() {
        let (mut timers, mut slot, mut due) = (Timers::default(), None, Vec::new());
        let (id, at) = (SocketId(3), Instant::from_micros);
        timers.at_latest(id, &mut slot, at(50));
        timers.at_latest(id, &mut slot, at(70));
        assert_eq!(timers.next(), Some(at(50)));
        timers.at_latest(id, &mut slot, at(20));
        assert_eq!(timers.next(), Some(at(20)));
        timers.take_due(at(19), &mut due);
        assert_eq!(due, []);
        timers.take_due(at(20), &mut due);
        assert_eq!(due, [id]);
        assert_eq!(timers.next(), None);
        slot = None;
        timers.at_latest(id, &mut slot, at(90));
        timers.cancel(id, &mut slot);
        assert_eq!((timers.next(), slot), (None, None));
    }
}
