//! The input log of a VM on disk.
//!
//! A journal is a directory. It holds *records*, opaque bytes that have consecutive positions, and
//! *snapshots*, files that the VMM writes itself and registers with a position. To go back to a
//! moment, the VMM loads the newest snapshot before it and replays the records behind that. The
//! crate knows neither KVM nor VMM. `docs/journal-format.md` describes the files.
//!
//! - [`Writer`] appends; a thread of its own writes and syncs, one sync for all that was appended
//!   during the one before, and tells a hook how far the records are durable. R3: output that
//!   depends on a record may leave the host when the hook has been told of that.
//! - [`Reader`] reads, also while a writer is at work. It cuts what an interrupted write left at
//!   the end; damage anywhere else is an error that names file, offset and record.
//! - [`storage`] is the seam to the file system, with one whose power can be cut.
//!
//! # What is promised
//! After the end of the process at any instruction, the journal has every record up to the last
//! [`Event::Written`]; after a power cut every one up to the last [`Event::Durable`]; possibly more
//! of those that were appended, but always without a gap. In both cases it can be read, and opened
//! for writing again. The disk must keep what it says it has synced, and must not change bytes of a
//! sector while it writes the same bytes there again.
//!
//! # Example
//! ```
//! use journal::{Event, Options, Reader, Writer};
//! use std::{fs, sync::mpsc};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let dir = dir.path();
//! let (tell, told) = mpsc::channel();
//! let writer = Writer::create(dir, b"kv on some CPU", 1, Options::default(), move |event| {
//!     if let Event::Durable(position) = event {
//!         tell.send(position).ok();
//!     }
//! })?;
//! // The base: the VM before its first record.
//! fs::write(writer.snapshot_path(), "memory and state")?;
//! writer.commit_snapshot(0, b"")?;
//! writer.append_more(1, b"what the guest did")?;
//! writer.append(2, b"what it was given")?;
//! while told.recv()? < 2 {} // Then frames that depend on it may leave.
//! writer.close()?;
//!
//! let reader = Reader::open(dir)?;
//! let base = reader.snapshots().last().unwrap();
//! let records = reader.records_from(base.position + 1)?.collect::<Result<Vec<_>, _>>()?;
//! assert_eq!(records[1], (2, b"what it was given".to_vec()));
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

mod error;
pub mod format;
mod reader;
pub mod storage;
mod writer;

pub use error::Error;
pub use format::{JournalId, manifest::Manifest};
pub use reader::{Reader, Record, Records, Snapshot, Torn};
pub use writer::{
    Event, Keep, Options, Pruned, Recovered, Stats, SyncPolicy, Writer, prune, prune_in,
};
