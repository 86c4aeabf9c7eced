//! Snapshots of a journal that is being written, and pruning.

use super::{Writer, files, lock, now_ns, prune as removal, too_long};
use crate::{
    Error, Keep, Pruned, Snapshot,
    format::{
        names,
        resume::{RESUME_MAX, Registered},
    },
    reader,
    storage::{Directory, RealDirectory},
};
use std::{
    path::{Path, PathBuf},
    sync::PoisonError,
};

impl Writer {
    /// Where the VMM writes a snapshot that it will [register](Self::commit_snapshot). One that it
    /// does not register is removed when the journal is next opened for writing.
    #[must_use]
    pub fn snapshot_path(&self) -> PathBuf {
        self.dir.path(names::NEW_SNAPSHOT)
    }

    /// Registers the snapshot at [`snapshot_path`](Self::snapshot_path), which contains the effect
    /// of all records up to `position`, with the bytes that the VMM needs to go on from it, at most
    /// 64 KiB. Waits until these records are durable. When it returns, the snapshot is.
    ///
    /// If there is a snapshot at that position, it stays, and the new one is removed: they are the
    /// same state.
    ///
    /// # Errors
    /// [`NoSuchPoint`](Error::NoSuchPoint), [`TooLong`](Error::TooLong), those of
    /// [`flush_now`](Self::flush_now) and the host's. The snapshot does not count then; where the
    /// disk is full, remove the file.
    pub fn commit_snapshot(&self, position: u64, resume: &[u8]) -> Result<(), Error> {
        too_long("the resume bytes", resume.len(), RESUME_MAX)?;
        let _alone = self.snapshots.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, _, durable) = self.queue.positions();
        if position > last || position < self.manifest.first - 1 {
            return Err(Error::NoSuchPoint { position, last });
        }
        if position > durable {
            self.queue.flush()?;
        }
        let dir = &*self.dir;
        if self.registered()?.iter().any(|snapshot| snapshot.position == position) {
            return files::remove(dir, names::NEW_SNAPSHOT);
        }
        let path = self.snapshot_path().display().to_string();
        let file = dir.open_to_write(names::NEW_SNAPSHOT).map_err(Error::io("open", &path))?;
        file.sync().map_err(Error::io("sync", &path))?;
        let size = file.size().map_err(Error::io("read", &path))?;
        let (id, resume) = (self.manifest.id, resume.to_vec());
        let registered = Registered { id, position, size, taken_ns: now_ns(), resume };
        let name = names::resume(position);
        // What needs space comes first: then a full disk leaves no snapshot that does not count.
        files::prepare_bytes(dir, &name, &registered.encode())?;
        files::rename(dir, names::NEW_SNAPSHOT, &names::snapshot(position))?;
        files::rename(dir, &names::unfinished(&name), &name)
    }

    /// Removes snapshots that are not to be kept, and the segments of the log that are wholly
    /// before the oldest one left. Does nothing while there is no snapshot.
    ///
    /// # Errors
    /// The host's, and [`Damaged`](Error::Damaged) if a file that registers a snapshot is. What
    /// remains is a journal.
    pub fn prune(&self, keep: Keep) -> Result<Pruned, Error> {
        let _alone = self.snapshots.lock().unwrap_or_else(PoisonError::into_inner);
        removal::prune(&*self.dir, &self.registered()?, keep, now_ns())
    }

    fn registered(&self) -> Result<Vec<Snapshot>, Error> {
        reader::registered(&*self.dir, &self.manifest.id)
    }
}

/// Prunes the journal in the directory at `path`, which nobody writes: see [`Writer::prune`]. It
/// needs no space, so it helps where the disk is too full to open the journal for writing.
///
/// # Errors
/// [`Locked`](Error::Locked), and those of [`Reader::open`](crate::Reader::open).
pub fn prune(path: &Path, keep: Keep) -> Result<Pruned, Error> {
    prune_in(
        &RealDirectory::open(path).map_err(Error::io("open", path.display().to_string()))?,
        keep,
    )
}

/// Prunes the journal in `dir`; see [`prune()`].
///
/// # Errors
/// As [`prune()`].
pub fn prune_in(dir: &dyn Directory, keep: Keep) -> Result<Pruned, Error> {
    let manifest = reader::read_manifest(dir)?;
    let _lock = lock(dir)?;
    removal::prune(dir, &reader::registered(dir, &manifest.id)?, keep, now_ns())
}
