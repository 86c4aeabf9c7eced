//! Records on their way from the connection to the vCPU that executes them.

use crate::{
    devices::gate::Gate,
    devices::inputs::Traffic,
    vm::{Next, Source},
};
use migrate::{input_log, replication::wire::split_records, wire::WireError};
use std::{
    collections::VecDeque,
    fmt, io,
    os::fd::AsRawFd,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Instant,
};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// Most bytes of records that wait; a connection that brings more is not read meanwhile.
const BYTES_MAX: usize = 128 << 20;

/// The records that a standby has received and not executed.
#[derive(Debug)]
pub struct Feed {
    records: Mutex<Records>,
    /// Readable when there may be records.
    more: EventFd,
    /// Written when the vCPU has nothing left to execute, if that is waited for.
    idle: Arc<EventFd>,
    waited_for: AtomicBool,
    /// The last record that was executed.
    executed: AtomicU64,
}

#[derive(Debug)]
struct Records {
    waiting: VecDeque<Vec<u8>>,
    bytes: usize,
    /// When the last came.
    came: Instant,
}

impl Feed {
    /// For a copy that has executed all up to the record at `position`. `idle` is written when it
    /// has executed all that is there.
    pub fn new(position: u64, idle: Arc<EventFd>) -> io::Result<Arc<Self>> {
        let records = Records { waiting: VecDeque::new(), bytes: 0, came: Instant::now() };
        Ok(Arc::new(Self {
            records: Mutex::new(records),
            more: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
            idle,
            waited_for: AtomicBool::new(false),
            executed: AtomicU64::new(position),
        }))
    }

    /// From now on tells when the vCPU has nothing left to execute, and at once if that is so.
    pub fn wait_for_it(&self) {
        self.waited_for.store(true, SeqCst);
        let _ = self.idle.write(1);
    }

    fn lock(&self) -> MutexGuard<'_, Records> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds the records of a message that has `count` of them.
    pub fn add(&self, bytes: &[u8], count: u64) -> Result<(), WireError> {
        let records = split_records(bytes, count)?;
        let mut all = self.lock();
        all.bytes += bytes.len();
        all.came = Instant::now();
        all.waiting.extend(records.into_iter().map(<[u8]>::to_vec));
        drop(all);
        self.wake();
        Ok(())
    }

    fn wake(&self) {
        // A counter that is full is readable too.
        let _ = self.more.write(1);
    }

    /// Whether more may be added.
    pub fn has_room(&self) -> bool {
        self.lock().bytes < BYTES_MAX
    }

    /// When the last records came.
    pub fn came(&self) -> Instant {
        self.lock().came
    }

    /// Position of the last record that was executed.
    pub fn executed(&self) -> u64 {
        self.executed.load(SeqCst)
    }
}

/// The vCPU's end.
#[derive(Debug)]
pub struct FeedSource(pub Arc<Feed>);

impl Source for FeedSource {
    fn next(&mut self, position: u64) -> io::Result<Next> {
        let Self(feed) = self;
        feed.executed.store(position - 1, SeqCst);
        let mut records = feed.lock();
        let Some(record) = records.waiting.pop_front() else {
            // A record that is added from now on makes it readable again.
            let _ = feed.more.read();
            drop(records);
            if feed.waited_for.load(SeqCst) {
                let _ = feed.idle.write(1);
            }
            return Ok(Next::Later(feed.more.as_raw_fd()));
        };
        records.bytes = records.bytes.saturating_sub(record.len());
        drop(records);
        let record = input_log::decode(&record)
            .map_err(|e| io::Error::other(format!("record {position} of the log: {e}")))?;
        Ok(Next::Record(record))
    }
}

/// Keeps a standby's output at its gate.
pub struct Kept(pub Arc<Gate>);

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").finish_non_exhaustive()
    }
}

impl Traffic for Kept {
    fn at(&mut self, position: u64, _: Option<u64>) {
        self.0.depend_on(position);
    }

    fn sends(&self) -> bool {
        true
    }

    fn sent(&mut self, _: &[u8]) {}

    fn received(&mut self, _: &[u8]) {}
}
