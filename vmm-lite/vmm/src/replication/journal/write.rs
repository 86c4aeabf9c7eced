//! Keeps the journal of a VM that runs.

use super::{Error, identity::Identity};
use crate::{
    devices::gate::Gate,
    host::confine::{self, Thread},
    replication::base,
    vm::{Log, Paused, Position, RecordOptions, Urgency},
};
use ::journal::{Event, Stats, SyncPolicy, Writer};
use std::{fmt, io, path::Path, sync::Arc};

/// How a journal is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Options {
    /// When it is synced. With [`SyncPolicy::Always`], output waits for that; else only until the
    /// host has the records that it depends on.
    pub sync: SyncPolicy,
    /// Digests of the VM's state in it.
    pub record: RecordOptions,
}

/// The journal of a VM. Dropping it ends the journal: everything so far is durable then.
pub struct Journal {
    writer: Arc<Writer>,
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal").finish_non_exhaustive()
    }
}

impl Journal {
    /// Begins a journal in the empty directory `dir` for a VM that does not run: with the VM as it
    /// is. Its output then waits for the journal.
    ///
    /// # Errors
    /// [`Error`]; the VM must be dropped then.
    pub fn begin(paused: &mut Paused<'_>, dir: &Path, options: Options) -> Result<Self, Error> {
        let gate = Gate::new();
        let identity = Identity::of(paused.vm()).encode();
        let writer = Writer::create(dir, &identity, 1, files(options), opens(&gate, options.sync))?;
        base::write(paused, &writer.snapshot_path())?;
        writer.commit_snapshot(0, &resume(Position::default()))?;
        Self::record(paused, writer, gate, 0, options)
    }

    fn record(
        paused: &mut Paused<'_>,
        writer: Writer,
        gate: Arc<Gate>,
        after: u64,
        options: Options,
    ) -> Result<Self, Error> {
        paused.hold_output(&gate)?;
        let writer = Arc::new(writer);
        let log = JournalLog { writer: Arc::clone(&writer), gate };
        paused.record(Box::new(log), after, options.record)?;
        Ok(Self { writer })
    }

    pub(super) fn writer(&self) -> &Arc<Writer> {
        &self.writer
    }

    /// Its figures.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.writer.stats()
    }

    /// Waits until everything so far is durable, and what depends on it has left.
    ///
    /// # Errors
    /// The error of its files.
    pub fn flush(&self) -> Result<(), Error> {
        self.writer.flush_now()?;
        Ok(())
    }
}

/// A journal that is opened again, for a VM that is to go on where it ends.
pub struct Reopened {
    writer: Writer,
    gate: Arc<Gate>,
    after: u64,
    options: Options,
}

impl fmt::Debug for Reopened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reopened").field("after", &self.after).finish_non_exhaustive()
    }
}

impl Reopened {
    /// Opens the journal in `dir`, and cuts what an interrupted write left at its end.
    ///
    /// # Errors
    /// The error of its files, also if another process writes it.
    pub fn open(dir: &Path, options: Options) -> Result<Self, Error> {
        let gate = Gate::new();
        let (writer, recovered) = Writer::open(dir, files(options), opens(&gate, options.sync))?;
        if let Some(torn) = recovered.torn {
            tracing::info!("{} bytes of an interrupted write were cut", torn.bytes);
        }
        Ok(Self { writer, gate, after: recovered.ends_at, options })
    }

    /// Goes on with the journal for a VM that has replayed all of it.
    ///
    /// # Errors
    /// [`Error`]; the VM must be dropped then.
    pub fn go_on(self, paused: &mut Paused<'_>) -> Result<Journal, Error> {
        let Self { writer, gate, after, options } = self;
        Journal::record(paused, writer, gate, after, options)
    }
}

fn files(options: Options) -> ::journal::Options {
    ::journal::Options { sync: options.sync, ..Default::default() }
}

/// What resumes a replay from a snapshot.
pub(super) fn resume(at: Position) -> Vec<u8> {
    (at.samples as u32).to_le_bytes().to_vec()
}

/// Opens the gate as the journal grows. On the journal's own thread.
fn opens(gate: &Arc<Gate>, sync: SyncPolicy) -> impl FnMut(Event) + Send + 'static {
    let gate = Arc::clone(gate);
    move |event| {
        match (event, sync) {
            (Event::Started, _) => {
                if let Err(e) = confine::enter(Thread::Journal) {
                    tracing::error!("{}", crate::host::with_causes(&e));
                    std::process::abort();
                }
            }
            (Event::Durable(position), _)
            | (Event::Written(position), SyncPolicy::Every(_) | SyncPolicy::Never) => {
                gate.open_up_to(position);
            }
            (Event::Written(_), SyncPolicy::Always) => {}
            (Event::Failed(e), _) => {
                tracing::error!(
                    "the journal cannot be written any more, and the VM ends: {e}; make room and \
                     go on with `vmm-lite restore --journal`"
                );
                // A guest that waits at the gate is to find out too.
                gate.close_for_good();
            }
        }
    }
}

/// The vCPU thread's side.
struct JournalLog {
    writer: Arc<Writer>,
    gate: Arc<Gate>,
}

impl fmt::Debug for JournalLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JournalLog").finish_non_exhaustive()
    }
}

impl Log for JournalLog {
    fn append(&mut self, position: u64, record: &[u8], urgency: Urgency) -> io::Result<()> {
        let appended = match urgency {
            Urgency::Output => self.writer.append(position, record),
            Urgency::Copy | Urgency::None => self.writer.append_more(position, record),
        };
        appended.map_err(io::Error::other)?;
        self.gate.depend_on(position);
        Ok(())
    }
}
