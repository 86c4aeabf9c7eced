//! Reads a journal, also while another process writes it.

mod records;
mod segment;
mod snapshots;
mod tail;
mod window;

pub use records::{Record, Records};
pub use snapshots::Snapshot;
pub(crate) use tail::Tail;

use crate::{
    Error, JournalId,
    format::{
        POSITION_MAX,
        manifest::{self, Manifest},
        names::{self, Name},
    },
    storage::{Directory, RealDirectory},
};
use segment::Segment;
use std::{io, path::Path, sync::Arc};
use window::Window;

/// The end of the log, which an interrupted write left unfinished, and which does not count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Torn {
    /// Position of the first record that does not count; none after it does.
    pub position: u64,
    /// Bytes in the last segment behind the records that count.
    pub bytes: u64,
}

/// A journal, as it was when it was opened: what is written later is not seen.
pub struct Reader {
    dir: Arc<dyn Directory>,
    manifest: Manifest,
    /// First positions of the segments, in ascending order.
    segments: Vec<u64>,
    snapshots: Vec<Snapshot>,
    tail: Option<Tail>,
}

impl Reader {
    /// Opens the journal in the directory at `path`. Checks everything but the content of finished
    /// segments, which is checked as it is read.
    ///
    /// # Errors
    /// [`NotAJournal`](Error::NotAJournal), [`Version`](Error::Version),
    /// [`Damaged`](Error::Damaged), and the host's errors.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let dir = match RealDirectory::open(path) {
            Ok(dir) => dir,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(Error::NotAJournal(path.into()));
            }
            Err(e) => return Err(Error::io("open", path.display().to_string())(e)),
        };
        Self::open_in(Arc::new(dir))
    }

    /// Opens the journal in `dir`.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_in(dir: Arc<dyn Directory>) -> Result<Self, Error> {
        let manifest = read_manifest(&*dir)?;
        loop {
            // Without a writer that prunes meanwhile, the first time is the last.
            if let Some(reader) = Self::look(&dir, &manifest)? {
                return Ok(reader);
            }
        }
    }

    /// Reads the directory once. `None` where a writer has pruned all segments or snapshots that
    /// were there at first: there are newer ones.
    fn look(dir: &Arc<dyn Directory>, manifest: &Manifest) -> Result<Option<Self>, Error> {
        let (dir, manifest) = (Arc::clone(dir), manifest.clone());
        let names = list(&*dir)?;
        let snapshots = snapshots::read(&*dir, &manifest.id, &names)?;
        let mut segments: Vec<_> = names
            .iter()
            .filter_map(|name| if let Name::Segment(first) = name { Some(*first) } else { None })
            .collect();
        segments.sort_unstable();
        let mut reader = Self { dir, manifest, segments, snapshots, tail: None };
        if !reader.check_segments()? {
            return Ok(None);
        }
        // What is still registered now has had its segments all the time.
        let found = reader.snapshots.len();
        let id = reader.manifest.id;
        for snapshot in std::mem::take(&mut reader.snapshots) {
            reader.snapshots.extend(snapshots::read_one(&*reader.dir, &id, snapshot.position)?);
        }
        if found > 0 && reader.snapshots.is_empty() {
            return Ok(None);
        }
        reader.check_range()?;
        Ok(Some(reader))
    }

    /// Checks the segments' headers and ends, and finds the end of the log. Returns whether the
    /// last one was there.
    fn check_segments(&mut self) -> Result<bool, Error> {
        let (dir, id) = (Arc::clone(&self.dir), self.manifest.id);
        let Some(last) = self.segments.pop() else { return Ok(true) };
        let firsts = std::mem::take(&mut self.segments);
        for (n, first) in firsts.iter().enumerate() {
            let follows = firsts.get(n + 1).copied().unwrap_or(last);
            match snapshots::unless_gone(Segment::open(&*dir, id, *first))? {
                Some(mut segment) => {
                    segment.check_end(follows)?;
                    self.segments.push(*first);
                }
                // A writer has removed it since, and those before it.
                None => self.segments.clear(),
            }
        }
        self.segments.push(last);
        let last = snapshots::unless_gone(Segment::open(&*dir, id, last))?;
        self.tail = last.map(|mut last| tail::find(&mut last, &id)).transpose()?;
        Ok(self.tail.is_some())
    }

    /// Checks that the log reaches from the oldest snapshot, or the beginning, to the newest.
    fn check_range(&self) -> Result<(), Error> {
        let begin = self.first();
        if begin < self.manifest.first {
            let what = format!("the journal begins with record {}", self.manifest.first);
            return Err(Error::damaged(self.path(&names::segment(begin)), 0, Some(begin), what));
        }
        if self.ends_at() > POSITION_MAX {
            let what = format!("no journal has a record {}", self.ends_at());
            return Err(Error::damaged(self.path(&names::segment(begin)), 0, Some(begin), what));
        }
        let oldest = self.snapshots.first().map_or(0, |snapshot| snapshot.position);
        if begin > self.manifest.first && begin - 1 > oldest {
            let what = "the segments before it are missing";
            return Err(Error::damaged(
                self.path(&names::segment(begin)),
                0,
                Some(oldest.max(self.manifest.first - 1) + 1),
                what,
            ));
        }
        let newest = self.snapshots.last().map(|snapshot| snapshot.position);
        if let Some(newest) = newest.filter(|newest| *newest > self.ends_at()) {
            // Records are durable before a snapshot behind them is registered.
            let what = format!("the log ends before it, with record {}", self.ends_at());
            let (file, position) = (self.path(&names::snapshot(newest)), self.ends_at() + 1);
            return Err(Error::damaged(file, 0, Some(position), what));
        }
        Ok(())
    }

    /// What the journal is.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The registered snapshots, oldest first.
    #[must_use]
    pub fn snapshots(&self) -> &[Snapshot] {
        &self.snapshots
    }

    /// Position of the first record in the journal, or of the one that comes next if there is none.
    #[must_use]
    pub fn first(&self) -> u64 {
        self.segments.first().copied().unwrap_or(self.manifest.first)
    }

    /// Position of the last record: one less than [`first`](Self::first) if there is none.
    #[must_use]
    pub fn ends_at(&self) -> u64 {
        self.tail.map_or(self.manifest.first, |tail| tail.next) - 1
    }

    /// What an interrupted write left at the end of the log. While a writer is at work, that may be
    /// a batch that is being written.
    #[must_use]
    pub fn torn(&self) -> Option<Torn> {
        self.tail.and_then(|tail| tail.torn)
    }

    /// The records from `position` to [`ends_at`](Self::ends_at), in order and without a gap;
    /// nothing for the position behind the last.
    ///
    /// # Errors
    /// [`NotThere`](Error::NotThere). The iterator's: [`Damaged`](Error::Damaged) and the host's
    /// errors.
    pub fn records_from(&self, position: u64) -> Result<Records, Error> {
        let (first, last) = (self.first(), self.ends_at());
        if position < first || position > last + 1 {
            return Err(Error::NotThere { asked: position, first, last });
        }
        Records::new(self, position)
    }

    /// First positions of the segments, in ascending order.
    pub(crate) fn segments(&self) -> &[u64] {
        &self.segments
    }

    pub(crate) fn tail(&self) -> Option<Tail> {
        self.tail
    }

    fn path(&self, name: &str) -> String {
        self.dir.path(name).display().to_string()
    }
}

/// The registered snapshots, oldest first.
pub(crate) fn registered(dir: &dyn Directory, id: &JournalId) -> Result<Vec<Snapshot>, Error> {
    snapshots::read(dir, id, &list(dir)?)
}

fn list(dir: &dyn Directory) -> Result<Vec<Name>, Error> {
    let here = dir.path("").display().to_string();
    let names = dir.list().map_err(Error::io("list", here))?;
    Ok(names.iter().map(|name| Name::of(name)).collect())
}

pub(crate) fn read_manifest(dir: &dyn Directory) -> Result<Manifest, Error> {
    let most = manifest::HEADER + manifest::IDENTITY_MAX;
    let file = match read_small(dir, names::MANIFEST, most) {
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Err(Error::NotAJournal(dir.path("")));
        }
        other => other?,
    };
    let path = dir.path(names::MANIFEST).display().to_string();
    Manifest::decode(&file).map_err(|refused| refused.of(path))
}

/// Reads a whole file of at most `most` bytes.
fn read_small(dir: &dyn Directory, name: &str, most: usize) -> Result<Vec<u8>, Error> {
    let mut window = Window::open(dir, name)?;
    let size = window.size()?;
    if size > most as u64 {
        return Err(Error::damaged(window.path(), most as u64, None, "it is too long"));
    }
    Ok(window.get(0, size as usize)?.to_vec())
}
