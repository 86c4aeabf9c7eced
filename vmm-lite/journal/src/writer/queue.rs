//! What the threads share: records that wait to be written, and how far the writer thread is.

use super::{Event, Stats, SyncPolicy};
use crate::{
    Error,
    format::batch::{self, RECORD_MAX},
};
use std::{
    mem,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Records of one batch.
#[derive(Default)]
pub struct Batch {
    pub payload: Vec<u8>,
    pub count: u32,
}

/// What the writer thread is to do.
pub enum Task {
    /// Write these, and sync if told so.
    Write { batch: Batch, sync: bool },
    /// Try again what failed.
    Retry,
    /// Finish the segment, and end.
    Finish,
}

struct State {
    waiting: Batch,
    /// Position of the record that comes next.
    next: u64,
    written: u64,
    durable: u64,
    /// The waiting records are to be written now.
    urgent: bool,
    /// Everything up to this record is to be synced now.
    wanted: u64,
    last_sync: Instant,
    /// The writer thread sleeps, and nobody has woken it.
    idle: bool,
    /// It wakes by itself when a sync is due.
    timed: bool,
    /// An `append` waits for room.
    blocked: bool,
    retry: bool,
    closing: bool,
    failure: Option<Error>,
    stats: Stats,
}

/// The shared part of a writer.
pub struct Queue {
    policy: SyncPolicy,
    limit: usize,
    state: Mutex<State>,
    /// Tells the writer thread that there is something to do.
    work: Condvar,
    /// Tells the others that the writer thread has got further.
    progress: Condvar,
}

impl Queue {
    pub fn new(next: u64, policy: SyncPolicy, limit: usize) -> Self {
        let state = State {
            waiting: Batch::default(),
            next,
            written: next - 1,
            durable: next - 1,
            urgent: false,
            wanted: 0,
            last_sync: Instant::now(),
            idle: false,
            timed: false,
            blocked: false,
            retry: false,
            closing: false,
            failure: None,
            stats: Stats::default(),
        };
        let (work, progress) = (Condvar::new(), Condvar::new());
        Self { policy, limit, state: Mutex::new(state), work, progress }
    }

    pub fn append(&self, position: u64, record: &[u8], now: bool) -> Result<(), Error> {
        if record.len() > RECORD_MAX {
            let (what, length, most) = ("the record", record.len(), RECORD_MAX);
            return Err(Error::TooLong { what, length, most });
        }
        let mut state = self.lock();
        let size = record.len() + batch::LENGTH;
        if !state.has_room(size, self.limit) && state.failure.is_none() {
            state = self.wait_for_room(state, size);
        }
        if let Some(failure) = &state.failure {
            return Err(failure.clone());
        }
        if position != state.next {
            return Err(Error::OutOfOrder { expected: state.next, got: position });
        }
        batch::push(&mut state.waiting.payload, record);
        state.waiting.count += 1;
        state.next += 1;
        state.stats.records += 1;
        state.stats.record_bytes += record.len() as u64;
        let urgent = now || state.waiting.payload.len() > self.limit / 2;
        state.urgent |= urgent;
        // With a policy that has a time, it has to know that there is something to be synced.
        if urgent || !state.timed && matches!(self.policy, SyncPolicy::Every(_)) {
            self.wake(state);
        }
        Ok(())
    }

    fn wait_for_room<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        size: usize,
    ) -> MutexGuard<'a, State> {
        let began = Instant::now();
        (state.urgent, state.blocked) = (true, true);
        self.work.notify_one();
        state = self
            .progress
            .wait_while(state, |s| !s.has_room(size, self.limit) && s.failure.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        state.stats.stalls += 1;
        state.stats.stalled += began.elapsed();
        state
    }

    /// Wakes the writer thread if it sleeps.
    fn wake(&self, mut state: MutexGuard<'_, State>) {
        let idle = mem::take(&mut state.idle);
        // A thread that is woken needs the lock first.
        drop(state);
        if idle {
            self.work.notify_one();
        }
    }

    /// Waits until everything appended so far is durable, and returns the last position.
    pub fn flush(&self) -> Result<u64, Error> {
        let mut state = self.lock();
        let wanted = state.next - 1;
        state.wanted = state.wanted.max(wanted);
        self.work.notify_one();
        let state = self
            .progress
            .wait_while(state, |s| s.durable < wanted && s.failure.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        match &state.failure {
            Some(failure) if state.durable < wanted => Err(failure.clone()),
            _ => Ok(wanted),
        }
    }

    pub fn retry(&self) {
        let mut state = self.lock();
        state.retry = state.failure.is_some();
        self.work.notify_one();
    }

    pub fn close(&self) {
        self.lock().closing = true;
        self.work.notify_one();
    }

    pub fn positions(&self) -> (u64, u64, u64) {
        let state = self.lock();
        (state.next - 1, state.written, state.durable)
    }

    pub fn failure(&self) -> Option<Error> {
        self.lock().failure.clone()
    }

    pub fn stats(&self) -> Stats {
        self.lock().stats
    }

    /// For the writer thread: waits until there is something to do. `empty` is what records are put
    /// into while it is at work.
    pub fn next_task(&self, empty: Batch) -> Task {
        let mut state = self.lock();
        loop {
            if state.failure.is_some() {
                if mem::take(&mut state.retry) {
                    state.failure = None;
                    return Task::Retry;
                }
                if state.closing {
                    return Task::Finish;
                }
                state = self.sleep(state, None);
                continue;
            }
            let unsynced = state.durable < state.next - 1;
            let due = match self.policy {
                SyncPolicy::Every(time) if unsynced => state.last_sync.checked_add(time),
                _ => None,
            };
            let sync = state.wanted > state.durable
                || due.is_some_and(|due| due <= Instant::now())
                || self.policy == SyncPolicy::Always && (state.urgent || state.closing) && unsynced;
            if sync || state.urgent || state.closing && state.waiting.count > 0 {
                state.urgent = false;
                let batch = mem::replace(&mut state.waiting, empty);
                if mem::take(&mut state.blocked) {
                    self.progress.notify_all();
                }
                return Task::Write { batch, sync };
            }
            if state.closing {
                return Task::Finish;
            }
            state = self.sleep(state, due);
        }
    }

    fn sleep<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        until: Option<Instant>,
    ) -> MutexGuard<'a, State> {
        (state.idle, state.timed) = (true, until.is_some());
        let mut state = match until {
            None => self.work.wait(state).unwrap_or_else(PoisonError::into_inner),
            Some(until) => {
                let time = until.saturating_duration_since(Instant::now());
                self.work.wait_timeout(state, time).unwrap_or_else(PoisonError::into_inner).0
            }
        };
        (state.idle, state.timed) = (false, false);
        state
    }

    /// For the writer thread: tells the others how far it is.
    pub fn report(&self, written: u64, durable: u64, synced: Option<Duration>, bytes: u64) {
        let mut state = self.lock();
        (state.written, state.durable) = (written, durable);
        if let Some(time) = synced {
            state.last_sync = Instant::now();
            state.stats.syncs += 1;
            state.stats.syncing += time;
        }
        state.stats.batches += u64::from(bytes > 0);
        state.stats.file_bytes += bytes;
        drop(state);
        self.progress.notify_all();
    }

    /// For the writer thread: tells the others that it cannot go on.
    pub fn fail(&self, error: &Error) -> Event {
        self.lock().failure = Some(error.clone());
        self.progress.notify_all();
        Event::Failed(error.clone())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn has_room(&self, size: usize, limit: usize) -> bool {
        self.waiting.count == 0 || self.waiting.payload.len() + size <= limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        sync::{Arc, mpsc},
        thread,
    };

    #[test]
    fn a_thread_that_sleeps_learns_of_a_record_that_must_be_synced_in_time() {
        let every = SyncPolicy::Every(Duration::from_millis(1));
        let queue = Arc::new(Queue::new(1, every, 1000));
        let (tell, told) = mpsc::channel();
        let sleeper = Arc::clone(&queue);
        thread::spawn(move || tell.send(sleeper.next_task(Batch::default())));
        while !queue.lock().idle {
            thread::yield_now();
        }
        queue.append(1, b"", false).unwrap();
        let task = told.recv_timeout(Duration::from_secs(20)).expect("it sleeps on");
        assert!(matches!(task, Task::Write { batch, sync: true } if batch.count == 1));
    }
}
