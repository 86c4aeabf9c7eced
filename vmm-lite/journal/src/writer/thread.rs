//! The thread that writes and syncs.

use super::{
    Event,
    log::Log,
    queue::{Batch, Queue, Task},
};
use crate::Error;
use std::{
    mem,
    time::{Duration, Instant},
};

/// What the thread works with.
pub struct Work<F> {
    pub log: Log,
    pub hook: F,
    /// The last record that the hook knows to be durable.
    pub told: u64,
}

/// A batch that is not written yet.
struct Held {
    batch: Batch,
    sync: bool,
}

/// Runs until the queue is closed and everything is written, or cannot be.
///
/// # Errors
/// When not everything is durable.
pub fn run<F: FnMut(Event)>(queue: &Queue, mut work: Work<F>) -> Result<(), Error> {
    let _ended = Ended(queue);
    (work.hook)(Event::Started);
    let mut spare = Batch::default();
    let mut held = None;
    loop {
        let result = match queue.next_task(mem::take(&mut spare)) {
            Task::Write { batch, sync } => work.write(queue, held.insert(Held { batch, sync })),
            Task::Retry => match &mut held {
                Some(held) => work.write(queue, held),
                None => Ok(()),
            },
            Task::Finish => {
                let finished = work.log.finish();
                work.report(queue, None, 0);
                work.tell_durable();
                return queue.failure().map_or(finished, Err);
            }
        };
        match result {
            Ok(()) => {
                let Some(Held { mut batch, .. }) = held.take() else { continue };
                batch.payload.clear();
                batch.count = 0;
                spare = batch;
            }
            Err(e) => {
                // A segment may have been finished before it failed.
                work.report(queue, None, 0);
                work.tell_durable();
                (work.hook)(queue.fail(&e));
            }
        }
    }
}

impl<F: FnMut(Event)> Work<F> {
    /// Writes a batch, and syncs. What has been done is not done again when this is called again
    /// after a failure.
    fn write(&mut self, queue: &Queue, held: &mut Held) -> Result<(), Error> {
        if held.batch.count > 0 {
            let bytes = self.log.write(held.batch.count, &held.batch.payload)?;
            held.batch.count = 0;
            self.report(queue, None, bytes);
            (self.hook)(Event::Written(self.log.written()));
            self.tell_durable();
        }
        if held.sync {
            let began = Instant::now();
            self.log.sync()?;
            self.report(queue, Some(began.elapsed()), 0);
            self.tell_durable();
        }
        Ok(())
    }

    /// Tells the hook what is durable, if that is more than it knows: also by the end of a segment.
    fn tell_durable(&mut self) {
        let durable = self.log.durable();
        if durable > self.told {
            self.told = durable;
            (self.hook)(Event::Durable(durable));
        }
    }

    fn report(&self, queue: &Queue, synced: Option<Duration>, bytes: u64) {
        queue.report(self.log.written(), self.log.durable(), synced, bytes);
    }
}

/// Makes the thread's end known to those who wait for it, also if the hook panics.
struct Ended<'a>(&'a Queue);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        if self.0.failure().is_none() {
            self.0.fail(&Error::Closed);
        }
    }
}
