//! The directory that holds a journal, as the journal sees it.
//!
//! The seam between the journal and the file system: [`RealDirectory`] is the host's,
//! [`sim`] one that loses everything unsynced when a test cuts its power.

mod real;
pub mod sim;

pub use real::RealDirectory;

use std::{io, path::PathBuf};

/// A directory. Names have no slashes.
///
/// Nothing is durable until it is synced: content by the file's methods, names by
/// [`sync`](Self::sync).
pub trait Directory: Send + Sync {
    /// The path of `name`, for messages, and for those who write a file themselves.
    fn path(&self, name: &str) -> PathBuf;

    /// The names in the directory, in no order.
    ///
    /// # Errors
    /// The host's error.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Opens a regular file for reading.
    ///
    /// # Errors
    /// The host's error, and [`InvalidInput`](io::ErrorKind::InvalidInput) for anything but a
    /// regular file.
    fn open(&self, name: &str) -> io::Result<Box<dyn Stored>>;

    /// Opens a regular file for reading and writing.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    fn open_to_write(&self, name: &str) -> io::Result<Box<dyn Stored>>;

    /// Makes a file that does not exist yet, for this user only.
    ///
    /// # Errors
    /// The host's error.
    fn create(&self, name: &str) -> io::Result<Box<dyn Stored>>;

    /// Renames a file, in place of the one that has the new name.
    ///
    /// # Errors
    /// The host's error.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// The host's error.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes all creations, renames and removals durable.
    ///
    /// # Errors
    /// The host's error. What was not durable may be lost then.
    fn sync(&self) -> io::Result<()>;

    /// Takes the journal's lock, or `None` where another has it. It is held until the value is
    /// dropped, or the process ends.
    ///
    /// # Errors
    /// The host's error.
    fn lock(&self) -> io::Result<Option<Box<dyn Lock>>>;
}

/// Holds the journal's lock while it exists.
pub trait Lock: Send + Sync {}

/// A file. Threads may use it at the same time.
pub trait Stored: Send + Sync {
    /// Its size in bytes.
    ///
    /// # Errors
    /// The host's error.
    fn size(&self) -> io::Result<u64>;

    /// Reads at `offset` until `to` is full or the file ends, and returns how many bytes were read.
    ///
    /// # Errors
    /// The host's error.
    fn read_at(&self, to: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all of `from` at `offset`.
    ///
    /// # Errors
    /// The host's error. A part may have been written.
    fn write_at(&self, from: &[u8], offset: u64) -> io::Result<()>;

    /// Makes the file at least `size` bytes long and reserves the space, so that writing within it
    /// needs no more. Where the file system cannot do so, it does nothing.
    ///
    /// # Errors
    /// The host's error: when the disk is full.
    fn allocate(&self, size: u64) -> io::Result<()>;

    /// Makes the file `size` bytes long.
    ///
    /// # Errors
    /// The host's error.
    fn truncate(&self, size: u64) -> io::Result<()>;

    /// Makes content and size durable.
    ///
    /// # Errors
    /// The host's error. What was not durable may be lost then, and another try may report success
    /// all the same: give up.
    fn sync(&self) -> io::Result<()>;
}
