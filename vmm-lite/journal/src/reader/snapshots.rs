//! The snapshots of a journal.

use super::{read_small, window::Window};
use crate::{
    Error, JournalId,
    format::{
        names::{self, Name},
        resume::{self, Registered},
    },
    storage::Directory,
};
use std::{io, path::PathBuf};

/// A snapshot that was registered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Snapshot {
    /// The last record whose effect it contains: go on with the one behind it.
    pub position: u64,
    /// The VMM's file. Its content is not checked here.
    pub path: PathBuf,
    /// Size of that file, in bytes.
    pub size: u64,
    /// When it was registered, in ns of Unix time.
    pub taken_ns: u64,
    /// What the VMM gave when it registered it.
    pub resume: Vec<u8>,
}

/// Reads what registers the snapshots among `names`, and returns them oldest first.
pub fn read(dir: &dyn Directory, id: &JournalId, names: &[Name]) -> Result<Vec<Snapshot>, Error> {
    let mut snapshots = Vec::new();
    for name in names {
        let Name::Resume(position) = name else { continue };
        snapshots.extend(read_one(dir, id, *position)?);
    }
    snapshots.sort_unstable_by_key(|snapshot| snapshot.position);
    Ok(snapshots)
}

/// Reads the snapshot at `position`. `None` where a writer has removed it since the names were
/// listed.
pub fn read_one(
    dir: &dyn Directory,
    id: &JournalId,
    position: u64,
) -> Result<Option<Snapshot>, Error> {
    let (name, of) = (names::resume(position), names::snapshot(position));
    let Some(file) = unless_gone(read_small(dir, &name, resume::HEADER + resume::RESUME_MAX))?
    else {
        return Ok(None);
    };
    let path = dir.path(&name).display().to_string();
    let registered = Registered::decode(&file, id, position).map_err(|refused| refused.of(path))?;
    let size = unless_gone(Window::open(dir, &of).and_then(|window| window.size()))?;
    let path = dir.path(&of);
    let Some(size) = size else {
        // A snapshot is removed after what registers it.
        let still = unless_gone(Window::open(dir, &name))?;
        let file = path.display().to_string();
        let damaged = || Error::damaged(file, 0, None, "the snapshot is missing");
        return still.map_or(Ok(None), |_| Err(damaged()));
    };
    if size != registered.size {
        let what = format!("it has {size} bytes, and {} when it was registered", registered.size);
        return Err(Error::damaged(path.display().to_string(), 0, None, what));
    }
    let Registered { taken_ns, resume, .. } = registered;
    Ok(Some(Snapshot { position, path, size, taken_ns, resume }))
}

/// `None` where the file is not there.
pub fn unless_gone<T>(result: Result<T, Error>) -> Result<Option<T>, Error> {
    match result {
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}
