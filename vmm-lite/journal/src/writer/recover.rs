//! What is done before a journal is written again: its last segment is finished where its records
//! end, and files are removed that were not finished.

use super::files;
use crate::{
    Error, Reader,
    format::{
        batch::{self, Encoder},
        manifest::Manifest,
        names::{self, Name},
    },
    reader::{Tail, Torn},
    storage::Directory,
};
use std::sync::Arc;

/// What was found when a journal was opened for writing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Recovered {
    /// Position of the last record; the next one that is appended is behind it.
    pub ends_at: u64,
    /// What was cut off.
    pub torn: Option<Torn>,
}

/// Brings the journal, whose lock is held, into a state in which a new segment can be begun.
pub fn recover(dir: &Arc<dyn Directory>) -> Result<(Manifest, Recovered), Error> {
    let reader = Reader::open_in(Arc::clone(dir))?;
    remove_unfinished(&**dir, &reader)?;
    let recovered = Recovered { ends_at: reader.ends_at(), torn: reader.torn() };
    if let (Some(last), Some(tail)) = (reader.segments().last(), reader.tail()) {
        // One without a record is replaced by the new segment.
        if tail.next > *last {
            finish(&**dir, reader.manifest(), *last, &tail)?;
        }
    }
    Ok((reader.manifest().clone(), recovered))
}

/// Ends the segment behind its last whole batch, if it has no end, and syncs it: the process that
/// wrote it may have died before it did. What is behind the batch is removed first, and durably: an
/// end is the last thing in a segment.
fn finish(dir: &dyn Directory, manifest: &Manifest, first: u64, tail: &Tail) -> Result<(), Error> {
    let name = names::segment(first);
    let path = dir.path(&name).display().to_string();
    let file = dir.open_to_write(&name).map_err(Error::io("open", &path))?;
    let sync = || file.sync().map_err(Error::io("sync", &path));
    let truncate = |size| file.truncate(size).map_err(Error::io("truncate", &path));
    if !tail.finished {
        truncate(tail.end)?;
        sync()?;
        let encoder = Encoder::new(manifest.id, false).map_err(Error::io("compress", &path))?;
        let end = encoder.end(tail.next, tail.next - 1);
        file.write_at(&end, tail.end).map_err(Error::io("write", &path))?;
    }
    // The space behind an end may not have been given back.
    truncate(tail.end + batch::HEADER as u64)?;
    sync()
}

fn remove_unfinished(dir: &dyn Directory, reader: &Reader) -> Result<(), Error> {
    let here = dir.path("").display().to_string();
    for name in dir.list().map_err(Error::io("list", here))? {
        let registered = |at| reader.snapshots().iter().any(|snapshot| snapshot.position == at);
        match Name::of(&name) {
            Name::Unfinished => files::remove(dir, &name)?,
            Name::Snapshot(at) if !registered(at) => files::remove(dir, &name)?,
            _ => {}
        }
    }
    Ok(())
}
