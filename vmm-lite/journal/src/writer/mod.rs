//! Writes a journal: a thread of its own writes and syncs what others append.

mod files;
mod log;
mod options;
mod prune;
mod queue;
mod recover;
mod snapshots;
mod thread;

pub use options::{Options, SyncPolicy};
pub use prune::{Keep, Pruned};
pub use recover::Recovered;
pub use snapshots::{prune, prune_in};

use crate::{
    Error,
    format::{
        POSITION_MAX,
        manifest::{IDENTITY_MAX, Manifest},
        names::{self, Name},
    },
    reader,
    storage::{Directory, Lock, RealDirectory},
};
use log::Log;
use queue::Queue;
use std::{
    io,
    path::Path,
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// What the writer thread tells the hook.
#[derive(Clone, Debug)]
pub enum Event {
    /// The writer thread has started, and has handled nothing yet: the moment to give it a
    /// priority, or a filter of system calls.
    Started,
    /// The host has every record up to this one: they outlive the process.
    Written(u64),
    /// The disk has every record up to this one: they outlive a power cut.
    Durable(u64),
    /// Nothing more can be written. See [`Writer::retry`].
    Failed(Error),
}

/// What a writer has done so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// Records that were appended.
    pub records: u64,
    /// Their bytes together.
    pub record_bytes: u64,
    /// Batches that were written.
    pub batches: u64,
    /// Bytes of the batches in the files.
    pub file_bytes: u64,
    /// Syncs for records; those at the ends of segments come on top.
    pub syncs: u64,
    /// How long these took together.
    pub syncing: Duration,
    /// How often `append` had to wait for the disk.
    pub stalls: u64,
    /// How long it waited in all.
    pub stalled: Duration,
}

/// A journal that is being written. There is one at a time, on all of the host.
///
/// Dropping it does what [`close`](Self::close) does, without telling about errors.
pub struct Writer {
    dir: Arc<dyn Directory>,
    manifest: Manifest,
    queue: Arc<Queue>,
    thread: Option<JoinHandle<Result<(), Error>>>,
    /// For what changes the snapshots: one at a time.
    snapshots: Mutex<()>,
    /// Released last.
    _lock: Box<dyn Lock>,
}

impl Writer {
    /// Makes a journal in the directory at `path`, which is made if need be, and empty otherwise.
    ///
    /// `identity` says what the journal belongs to, for its [readers](crate::Reader::manifest): at
    /// most 256 KiB. `first` is the position of the first record that will be appended, at least 1.
    /// The writer thread calls `hook` with each [`Event`]; the hook must not call
    /// [`flush_now`](Self::flush_now) or [`close`](Self::close), which wait for that thread.
    ///
    /// # Errors
    /// [`NotEmpty`](Error::NotEmpty), [`Locked`](Error::Locked), [`TooLong`](Error::TooLong),
    /// [`OutOfOrder`](Error::OutOfOrder) for a `first` of 0, and the host's errors.
    pub fn create(
        path: &Path,
        identity: &[u8],
        first: u64,
        options: Options,
        hook: impl FnMut(Event) + Send + 'static,
    ) -> Result<Self, Error> {
        let dir = RealDirectory::open_or_make(path)
            .map_err(Error::io("make", path.display().to_string()))?;
        Self::create_in(Arc::new(dir), identity, first, options, hook)
    }

    /// Makes a journal in `dir`; see [`create`](Self::create).
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn create_in(
        dir: Arc<dyn Directory>,
        identity: &[u8],
        first: u64,
        options: Options,
        hook: impl FnMut(Event) + Send + 'static,
    ) -> Result<Self, Error> {
        too_long("the identity", identity.len(), IDENTITY_MAX)?;
        if !(1..=POSITION_MAX).contains(&first) {
            return Err(Error::OutOfOrder { expected: 1, got: first });
        }
        // Before the lock's file is made there, too.
        must_be_empty(&*dir)?;
        let lock = lock(&*dir)?;
        must_be_empty(&*dir)?;
        let here = dir.path("").display().to_string();
        let mut id = [0; 16];
        getrandom::fill(&mut id)
            .map_err(|e| Error::io("make an id for", here)(io::Error::other(e)))?;
        let identity = identity.to_vec();
        let manifest = Manifest { id, first, created_ns: now_ns(), identity };
        files::publish_bytes(&*dir, names::MANIFEST, &manifest.encode())?;
        Self::start(dir, lock, manifest, first, options, hook)
    }

    /// Goes on with the journal in the directory at `path`, behind its last record. What an
    /// interrupted write left there is cut, and unfinished files are removed.
    ///
    /// To bring a VM to the end of a journal and run on, open the writer first: nobody else can
    /// then. Open a reader next, and replay.
    ///
    /// # Errors
    /// [`Locked`](Error::Locked), and those of [`Reader::open`](crate::Reader::open).
    pub fn open(
        path: &Path,
        options: Options,
        hook: impl FnMut(Event) + Send + 'static,
    ) -> Result<(Self, Recovered), Error> {
        let dir =
            RealDirectory::open(path).map_err(Error::io("open", path.display().to_string()))?;
        Self::open_in(Arc::new(dir), options, hook)
    }

    /// Goes on with the journal in `dir`; see [`open`](Self::open).
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_in(
        dir: Arc<dyn Directory>,
        options: Options,
        hook: impl FnMut(Event) + Send + 'static,
    ) -> Result<(Self, Recovered), Error> {
        // Before the lock's file is made there.
        reader::read_manifest(&*dir)?;
        let lock = lock(&*dir)?;
        let (manifest, recovered) = recover::recover(&dir)?;
        let next = recovered.ends_at + 1;
        Ok((Self::start(dir, lock, manifest, next, options, hook)?, recovered))
    }

    fn start(
        dir: Arc<dyn Directory>,
        lock: Box<dyn Lock>,
        manifest: Manifest,
        next: u64,
        options: Options,
        hook: impl FnMut(Event) + Send + 'static,
    ) -> Result<Self, Error> {
        let Options { sync, segment_size, buffer, compress } = options.in_range();
        let log = Log::begin(Arc::clone(&dir), manifest.id, next, segment_size, compress)?;
        let queue = Arc::new(Queue::new(next, sync, buffer));
        let work = thread::Work { log, hook, told: next - 1 };
        let thread = std::thread::Builder::new().name("journal".into());
        let shared = Arc::clone(&queue);
        let thread = thread
            .spawn(move || thread::run(&shared, work))
            .map_err(Error::io("start a thread for", dir.path("").display().to_string()))?;
        let (thread, snapshots) = (Some(thread), Mutex::new(()));
        Ok(Self { dir, manifest, queue, thread, snapshots, _lock: lock })
    }

    /// What the journal is.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Appends the record at `position`, which must be the next one; at most 16 MiB less 4 bytes.
    ///
    /// Copies the record and wakes the writer thread. Blocks only while as many bytes wait as
    /// [`Options::buffer`] allows, which [`Stats::stalls`] counts.
    ///
    /// # Errors
    /// [`OutOfOrder`](Error::OutOfOrder), [`TooLong`](Error::TooLong), and after
    /// [`Event::Failed`] its error. The record has not been appended then.
    pub fn append(&self, position: u64, record: &[u8]) -> Result<(), Error> {
        self.queue.append(position, record, true)
    }

    /// Like [`append`](Self::append), for a record after which another follows at once, or on which
    /// nobody waits: the writer thread is not woken. The record is written with the next one for
    /// which it is, when half of the buffer is full, and when the policy asks for a sync after some
    /// time.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub fn append_more(&self, position: u64, record: &[u8]) -> Result<(), Error> {
        self.queue.append(position, record, false)
    }

    /// The last record that was appended.
    #[must_use]
    pub fn appended(&self) -> u64 {
        self.queue.positions().0
    }

    /// The last record that the host has.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.queue.positions().1
    }

    /// The last record that the disk has.
    #[must_use]
    pub fn durable(&self) -> u64 {
        self.queue.positions().2
    }

    /// What was done so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.queue.stats()
    }

    /// Why nothing more can be written, if so.
    #[must_use]
    pub fn failure(&self) -> Option<Error> {
        self.queue.failure()
    }

    /// Waits until everything that was appended before is durable, whatever the policy. Returns the
    /// position of the last record of it.
    ///
    /// # Errors
    /// As [`append`](Self::append), after [`Event::Failed`].
    pub fn flush_now(&self) -> Result<u64, Error> {
        self.queue.flush()
    }

    /// After [`Event::Failed`] with an error that [says](Error::is_full) that the disk is full, and
    /// when there is room again: goes on where the writer failed. No record is lost. If it fails
    /// again there is another event. A failed sync is final; then this fails at once.
    pub fn retry(&self) {
        self.queue.retry();
    }

    /// Makes everything durable, finishes the segment and ends the writer thread. Returns the last
    /// position.
    ///
    /// # Errors
    /// Why not everything that was appended is in the journal. It is a journal all the same, with
    /// everything that was durable, and can be opened again.
    pub fn close(mut self) -> Result<u64, Error> {
        self.end()?;
        Ok(self.appended())
    }

    fn end(&mut self) -> Result<(), Error> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        self.queue.close();
        thread.join().unwrap_or(Err(Error::Closed))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

fn lock(dir: &dyn Directory) -> Result<Box<dyn Lock>, Error> {
    let path = dir.path(names::LOCK).display().to_string();
    dir.lock().map_err(Error::io("lock", path))?.ok_or_else(|| Error::Locked(dir.path("")))
}

/// Checks that there is nothing in the directory but what an interrupted `create` leaves.
fn must_be_empty(dir: &dyn Directory) -> Result<(), Error> {
    let here = dir.path("").display().to_string();
    for found in dir.list().map_err(Error::io("list", here))? {
        // A file system has `lost+found` at its root.
        if !matches!(Name::of(&found), Name::Lock | Name::Unfinished) && found != "lost+found" {
            return Err(Error::NotEmpty { dir: dir.path(""), found });
        }
    }
    Ok(())
}

fn too_long(what: &'static str, length: usize, most: usize) -> Result<(), Error> {
    if length > most { Err(Error::TooLong { what, length, most }) } else { Ok(()) }
}

/// Now, in ns of Unix time.
fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_nanos().try_into().unwrap_or(u64::MAX)
}
