//! A VM from a journal, and the records that it replays.

use super::{Error, identity::Identity};
use crate::{
    devices::clock,
    host::confine::{self, Thread},
    memory::{GuestRam, Writable},
    snapshot::{self, load, saved_vm::SavedVm},
    vm::{self, Next, Position, Source, codec::CodecError},
};
use ::journal::{Reader, Records, Snapshot, Torn};
use migrate::input_log::{self, Clock, Inputs, Record};
use std::{
    fmt, io,
    path::Path,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
};
use vmm_lite_interface::samples::RANDOM;

/// How far a journal is replayed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Until {
    /// To its end.
    End,
    /// To the record at this position.
    Record(u64),
    /// To the last exit of the guest before this time of its wall clock, in ns since 1970.
    Wall(u64),
}

/// A journal that is opened, and the VM that it begins with.
pub struct Opened {
    reader: Reader,
    base: Snapshot,
    at: Position,
    until: Until,
    memory: snapshot::Memory,
    /// The VM, as it was then.
    pub guest: SavedVm,
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened").field("at", &self.at).finish_non_exhaustive()
    }
}

impl Opened {
    /// Opens the journal in `dir`, from its last snapshot before `until` on.
    ///
    /// # Errors
    /// [`Error`], also if this host's CPU is of another model.
    pub fn open(dir: &Path, until: Until) -> Result<Self, Error> {
        let reader = Reader::open(dir)?;
        let newest: Vec<_> = reader.snapshots().iter().rev().cloned().collect();
        Self::from(reader, newest, until)
    }

    /// The same, from its first snapshot on.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_whole(dir: &Path, until: Until) -> Result<Self, Error> {
        let reader = Reader::open(dir)?;
        let oldest = reader.snapshots().to_vec();
        Self::from(reader, oldest, until)
    }

    fn from(reader: Reader, snapshots: Vec<Snapshot>, until: Until) -> Result<Self, Error> {
        Identity::decode(&reader.manifest().identity)?.fits()?;
        let (mut found, mut snapshots) = (None, snapshots.iter());
        while let (None, Some(base)) = (&found, snapshots.next()) {
            let file = files::open(&base.path).map_err(snapshot::Error::Write)?;
            let memory = load::open(file)?;
            let guest = load::guest(&memory)?;
            if until.is_after(base.position, &guest) {
                found = Some((base.clone(), memory, guest));
            }
        }
        let (base, memory, guest) = found.ok_or_else(|| Error::NoBase(until.to_string()))?;
        let at = resumed(base.position, &base.resume)?;
        Ok(Self { reader, base, at, until, memory, guest })
    }

    /// What an interrupted write left at the end, which does not count.
    #[must_use]
    pub fn torn(&self) -> Option<Torn> {
        self.reader.torn()
    }

    /// Position of its last record.
    #[must_use]
    pub fn ends_at(&self) -> u64 {
        self.reader.ends_at()
    }

    /// Where the VM stands.
    #[must_use]
    pub fn at(&self) -> Position {
        self.at
    }

    /// Fills its memory, which is zero.
    ///
    /// # Errors
    /// The snapshot's error.
    pub fn load(&self, memory: Writable<'_>) -> Result<(), Error> {
        Ok(load::memory(&self.memory, memory)?)
    }

    /// The records to be replayed by a VM with this memory, which is [loaded](Self::load). A thread
    /// reads ahead.
    ///
    /// # Errors
    /// The error of the journal's files, or the host's.
    pub fn records(&self, memory: &GuestRam) -> Result<Box<dyn Source>, Error> {
        self.records_after(self.base.position, memory)
    }

    /// The same, for a VM that has replayed the records up to `position`.
    ///
    /// # Errors
    /// As [`records`](Self::records).
    pub fn records_after(
        &self,
        position: u64,
        memory: &GuestRam,
    ) -> Result<Box<dyn Source>, Error> {
        let records = self.reader.records_from(position + 1)?;
        let clock = clock::as_published(&memory.control_page().clock);
        let limit = Limit { until: self.until, clock };
        let (to, read) = sync_channel(AHEAD);
        let thread = std::thread::Builder::new().name(Thread::Journal.name().into());
        let spawned = thread.spawn(move || read_ahead(records, limit, &to));
        let failed = |source| vm::Error::Host { doing: "start a thread", source };
        spawned.map_err(failed)?;
        Ok(Box::new(JournalSource(read)))
    }
}

/// Undoes `write::resume`.
fn resumed(record: u64, resume: &[u8]) -> Result<Position, CodecError> {
    let samples = resume.try_into().map_err(|_| CodecError::Garbled("place in the log"))?;
    Ok(Position { record, samples: u32::from_le_bytes(samples) as usize })
}

impl Until {
    /// Whether a VM that was saved at `position` was so before.
    fn is_after(self, position: u64, guest: &SavedVm) -> bool {
        let clock = guest.state.clock;
        match self {
            Self::End => true,
            Self::Record(until) => position <= until,
            Self::Wall(until) => clock.mono_ns.saturating_add(clock.wall_offset_ns) <= until,
        }
    }
}

impl fmt::Display for Until {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::End => f.write_str("its end"),
            Self::Record(position) => write!(f, "record {position}"),
            Self::Wall(_) => f.write_str("that time"),
        }
    }
}

/// Records that are read before they are needed.
const AHEAD: usize = 1024;

fn read_ahead(records: Records, mut limit: Limit, to: &SyncSender<io::Result<Record>>) {
    if let Err(e) = confine::enter(Thread::Journal) {
        let _ = to.send(Err(io::Error::other(e)));
        return;
    }
    for next in records {
        let record = next.map_err(io::Error::other).and_then(|(position, bytes)| {
            let damaged = |e| io::Error::other(format!("record {position} of the journal: {e}"));
            Ok((position, input_log::decode(&bytes).map_err(damaged)?))
        });
        let record = match record {
            Ok((position, record)) if limit.is_before(position, &record) => return,
            other => other.map(|(_, record)| record),
        };
        // Who reads may be gone.
        if to.send(record).is_err() {
            return;
        }
    }
}

/// The end of a replay.
struct Limit {
    until: Until,
    /// The guest's clock, as it was last told.
    clock: Clock,
}

impl Limit {
    /// Whether it is before this record.
    fn is_before(&mut self, position: u64, record: &Record) -> bool {
        match (self.until, record) {
            (Until::End, _) => false,
            (Until::Record(until), _) => position > until,
            (Until::Wall(_), Record::Inputs(Inputs { news, .. })) => {
                self.clock = news.as_ref().map_or(self.clock, |news| news.clock);
                false
            }
            (Until::Wall(until), Record::Exit(exit)) => {
                let mut readings = exit.samples.iter().filter(|sample| *sample & RANDOM == 0);
                readings.next_back().is_some_and(|tsc| clock::wall_ns(&self.clock, *tsc) > until)
            }
        }
    }
}

/// The records of a journal, as a thread reads them.
#[derive(Debug)]
struct JournalSource(Receiver<io::Result<Record>>);

impl Source for JournalSource {
    fn next(&mut self, _: u64) -> io::Result<Next> {
        match self.0.recv() {
            Ok(record) => record.map(Next::Record),
            Err(_) => Ok(Next::End),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resume_point_of_another_length_is_garbled() {
        for length in [0, 3, 5, 8] {
            assert!(matches!(resumed(7, &vec![0; length]), Err(CodecError::Garbled(_))));
        }
        let at = resumed(7, &[1, 2, 0, 0]).unwrap();
        assert_eq!((at.record, at.samples), (7, 0x201));
    }
}
