//! Sends memory.

use super::driver::Driver;
use crate::{
    capture,
    host::poll::Watch,
    migration::{
        connection::{Connection, LinkError},
        handover::Handover,
        progress::MoveObserver,
    },
    vm::CallOff,
};
use migrate::{
    MoveId,
    page_set::PageSet,
    source::Event,
    wire::{Message, RUNS_PER_MESSAGE, Run},
};
use std::time::{Duration, Instant};

/// How often the deadline is checked while waiting for the rate.
const LOOK: Duration = Duration::from_millis(100);

impl Driver<'_> {
    /// Sends a round while the guest runs. Between pieces either side can cancel it.
    pub(super) fn send_round(&mut self, round: u32, pages: &PageSet, observer: &dyn MoveObserver) {
        let first = round == 0;
        let sent = if first {
            self.send_first(pages, observer)
        } else {
            pages.iter().all(|number| self.send_page(number, false, observer))
        };
        if !sent {
            return;
        }
        self.packer.message(&Message::RoundEnd(round));
        if let Some(reclaimed) = self.reclaimed.filter(|_| first) {
            // Changes of all pages are logged now: a hinted page that the guest uses again from now
            // on is in the log, as the guest withdraws the hint before it writes the content.
            self.events.push_back(Event::LeftOut(self.vm.lost_content(reclaimed)));
        }
        self.sent();
    }

    /// Sends the pages of the first round. `false`: it failed or was cancelled.
    fn send_first(&mut self, pages: &PageSet, observer: &dyn MoveObserver) -> bool {
        let Some(changes) = &mut self.changes else { return false };
        let mut touched = match changes.touched() {
            Ok(touched) => touched,
            Err(e) => {
                self.failed(&e);
                return false;
            }
        };
        // An untouched page is zero at both ends.
        touched.keep(pages);
        let mut numbers = touched.iter().peekable();
        loop {
            let Some(changes) = &mut self.changes else { return false };
            match changes.next_piece() {
                Ok(Some(piece)) => {
                    while let Some(number) = numbers.next_if(|number| *number < piece.end) {
                        if !self.send_page(number, true, observer) {
                            return false;
                        }
                    }
                }
                Ok(None) => return true,
                Err(e) => {
                    self.failed(&e);
                    return false;
                }
            }
        }
    }

    /// Sends a page of a round, at the rate that is allowed. `false`: it failed or was cancelled.
    fn send_page(&mut self, number: usize, fresh: bool, observer: &dyn MoveObserver) -> bool {
        self.packer.page(self.vm.ram(), number, fresh);
        if !self.packer.is_full() {
            return true;
        }
        let Some(bytes) = self.flush() else { return false };
        fail_point!("source.in-round");
        let pause = self.pace.sent(bytes, Instant::now());
        !self.called_off(pause, observer)
    }

    /// Announces the pages that post-copy will send.
    pub(super) fn announce(&mut self, round: u32, pages: &PageSet) {
        self.name(pages);
        self.packer.message(&Message::RoundEnd(round));
        self.sent();
    }

    /// Sends the last pages and the state; announces the post-copy pages. With `hold` the state
    /// waits for the commit, and so does what does not fill a write. Between pieces it can be
    /// cancelled, as a round can.
    pub(super) fn send_last(
        &mut self,
        mut pages: PageSet,
        follow: &PageSet,
        hold: bool,
        observer: &dyn MoveObserver,
    ) {
        let fresh = self.source.rounds() == 0;
        if fresh {
            // An untouched page is zero at both ends.
            match capture::touched(self.complete) {
                Ok(touched) => pages.keep(&touched),
                Err(e) => return self.failed(&e),
            }
        }
        let Some(paused) = &mut self.paused else { return };
        let state = match paused.capture() {
            Ok(state) => state,
            Err(e) => return self.failed(&e),
        };
        fail_point!("source.captured", else return self.failed(&crate::fail_point::injected()));
        let paused = paused.leave();
        self.paused_there = paused;
        let state = Handover { state, paused, vouched_for: self.vm.was_vouched_for() }.to_bytes();
        self.name(follow);
        for number in pages.iter() {
            self.packer.page(self.vm.ram(), number, fresh);
            // The guest is stopped: the rate limit does not apply.
            if self.packer.is_full()
                && (self.flush().is_none() || self.called_off(Duration::ZERO, observer))
            {
                return;
            }
        }
        fail_point!("source.last-half-sent", after {
            self.packer.finish();
            // A broken link is an event.
            let _ = self.flush();
        });
        // A destination that sends something now reports a failure, or has disconnected: this must
        // be seen before the commit rather than after.
        if self.called_off(Duration::ZERO, observer) {
            return;
        }
        if hold {
            self.held = state;
            self.events.push_back(Event::Held);
        } else {
            self.packer.message(&Message::State(state));
            self.sent();
            fail_point!("source.state-sent");
        }
    }

    /// Sends the commit, and what waits for it.
    pub(super) fn send_commit(&mut self, id: MoveId) {
        let state = std::mem::take(&mut self.held);
        let with_state = !state.is_empty();
        self.packer.message(&Message::Commit(id, state));
        if with_state {
            self.sent();
        } else {
            self.flush();
        }
    }

    /// Sends post-copy pages.
    pub(super) fn send_following(&mut self, pages: &PageSet) {
        pages.iter().for_each(|number| self.packer.page(self.vm.ram(), number, false));
        self.packer.finish();
        self.sent();
        fail_point!("source.following");
    }

    fn name(&mut self, pages: &PageSet) {
        let runs: Vec<Run> = pages.runs().collect();
        for runs in runs.chunks(RUNS_PER_MESSAGE) {
            self.packer.message(&Message::Follow(runs.to_vec()));
        }
    }

    /// Sends the accumulated bytes; returns how many. `None`: the link broke, which is then an
    /// event.
    fn flush(&mut self) -> Option<u64> {
        let Self { connection, packer, .. } = self;
        let connection = connection.as_mut()?;
        let before = connection.sent();
        let flushed: Result<(), LinkError> = packer.flush(|bytes| connection.send_raw(bytes));
        let bytes = connection.sent() - before;
        match flushed {
            Ok(()) => Some(bytes),
            Err(e) => {
                let event = self.lost(&e);
                self.events.push_back(event);
                None
            }
        }
    }

    /// Sends the rest; returns the total.
    fn sent(&mut self) {
        if self.flush().is_some() {
            let sent = self.packer.take_sent();
            self.on_the_way = self.connection.as_ref().map_or(0, Connection::unacknowledged);
            self.events.push_back(Event::Sent(sent));
        }
    }

    /// Whether the round was cancelled: by the destination, the observer or `vmm-lite cancel`; or
    /// by the timeout. Checks until `pause` has passed.
    fn called_off(&mut self, pause: Duration, observer: &dyn MoveObserver) -> bool {
        let now = Instant::now();
        let until = now + pause;
        loop {
            if self.source.deadline().is_some_and(|at| at <= self.now()) {
                self.events.push_back(Event::Tick);
                return true;
            }
            let Some(connection) = &mut self.connection else { return true };
            // The loop that waits for the destination finds out what it is.
            if connection.has_buffered() {
                return true;
            }
            let left = until.saturating_duration_since(Instant::now());
            let call_off = CallOff::of(self.vm, observer.fd());
            match call_off.wait(&[Watch::Readable(connection.fd())], left.min(LOOK)) {
                Ok(Err(_)) => return true,
                Ok(Ok(ready)) if ready == [true] => match connection.wait(Duration::ZERO) {
                    // Part of a record: nothing can be received yet.
                    Ok(false) => {}
                    Ok(true) | Err(_) => return true,
                },
                Ok(Ok(_)) if until <= Instant::now() => {
                    self.packer.idled(until.saturating_duration_since(now));
                    return false;
                }
                Ok(_) => {}
                Err(e) => {
                    self.failed(&e);
                    return true;
                }
            }
        }
    }
}
