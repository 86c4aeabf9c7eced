//! The segment that is being written, without threads: write, sync, finish, begin the next one.
//!
//! Every step can be tried again after the disk was full, since nothing that counts was changed. A
//! failed sync cannot: the kernel may have dropped what it could not write, and would report
//! success the next time.

use crate::{
    Error, JournalId,
    format::{
        batch::{self, Encoder},
        names, segment,
    },
    storage::{Directory, Stored},
};
use std::{io, sync::Arc};

/// The log, open for writing.
pub struct Log {
    dir: Arc<dyn Directory>,
    id: JournalId,
    encoder: Encoder,
    /// Size at which a segment is finished, in bytes.
    segment_size: u64,
    file: Box<dyn Stored>,
    path: String,
    /// First position of the segment.
    first: u64,
    /// Where the next batch goes.
    end: u64,
    /// Position of the record that comes next.
    next: u64,
    /// The last record that was synced.
    durable: u64,
    /// The segment has its end, and the next one is not begun.
    finished: bool,
    /// A write has failed: there may be a part of it behind `end`.
    torn: bool,
    /// A sync has failed: nothing more may be claimed.
    lost: bool,
}

impl Log {
    /// Goes on with a new segment, whose first record will be `next`. All before must be durable.
    pub fn begin(
        dir: Arc<dyn Directory>,
        id: JournalId,
        next: u64,
        segment_size: u64,
        compress: bool,
    ) -> Result<Self, Error> {
        let here = dir.path("").display().to_string();
        let encoder = Encoder::new(id, compress).map_err(Error::io("compress", here))?;
        let file = new_segment(&*dir, &id, next, segment_size)?;
        let path = dir.path(&names::segment(next)).display().to_string();
        Ok(Self {
            dir,
            id,
            encoder,
            segment_size,
            file,
            path,
            first: next,
            end: segment::HEADER as u64,
            next,
            durable: next - 1,
            finished: false,
            torn: false,
            lost: false,
        })
    }

    /// The last record that is written.
    pub fn written(&self) -> u64 {
        self.next - 1
    }

    /// The last record that was synced.
    pub fn durable(&self) -> u64 {
        self.durable
    }

    /// Writes the `count` records in `payload` as a batch. Returns how many bytes the file grew by.
    pub fn write(&mut self, count: u32, payload: &[u8]) -> Result<u64, Error> {
        self.may_claim()?;
        let synced = self.durable;
        let length = self.encoder.batch(self.next, count, synced, payload).len() as u64;
        let full = self.end + length + batch::HEADER as u64 > self.segment_size;
        if self.finished || full && self.first < self.next {
            self.rotate()?;
        }
        // Encoded anew only if more is synced by now than when it was.
        let bytes = match self.durable == synced {
            true => self.encoder.last(),
            false => self.encoder.batch(self.next, count, self.durable, payload),
        };
        if let Err(e) = self.file.write_at(bytes, self.end) {
            self.torn = true;
            return Err(Error::io("write", &self.path)(e));
        }
        self.torn = false;
        self.end += length;
        self.next += u64::from(count);
        Ok(length)
    }

    /// Syncs what is written.
    pub fn sync(&mut self) -> Result<(), Error> {
        if self.durable < self.written() {
            self.sync_file()?;
            self.durable = self.written();
        }
        Ok(())
    }

    /// Finishes the segment and begins the next one.
    fn rotate(&mut self) -> Result<(), Error> {
        if !self.finished {
            self.finish()?;
        }
        let made = new_segment(&*self.dir, &self.id, self.next, self.segment_size);
        self.file = made.inspect_err(|e| self.lost |= is_sync(e))?;
        self.path = self.dir.path(&names::segment(self.next)).display().to_string();
        (self.first, self.end, self.finished) = (self.next, segment::HEADER as u64, false);
        Ok(())
    }

    /// Syncs everything, ends the segment, and gives back the space that it does not need. What is
    /// behind the last whole batch is removed.
    pub fn finish(&mut self) -> Result<(), Error> {
        self.may_claim()?;
        if self.finished {
            return Ok(());
        }
        if self.torn {
            self.truncate(self.end)?;
            self.sync_file()?;
            self.torn = false;
        }
        if self.first == self.next {
            // Without a record there is no end: the next writer replaces the segment.
            self.truncate(self.end)?;
            return self.sync_file();
        }
        // Then the end can tell that all before it is durable: what cannot be read is damaged.
        self.sync()?;
        let end = self.encoder.end(self.next, self.durable);
        self.file.write_at(&end, self.end).map_err(|e| {
            self.torn = true;
            Error::io("write", &self.path)(e)
        })?;
        self.truncate(self.end + end.len() as u64)?;
        self.sync_file()?;
        self.finished = true;
        Ok(())
    }

    fn may_claim(&self) -> Result<(), Error> {
        match self.lost {
            true => Err(Error::io("sync", &self.path)(io::Error::other("it has failed before"))),
            false => Ok(()),
        }
    }

    fn truncate(&self, size: u64) -> Result<(), Error> {
        self.file.truncate(size).map_err(Error::io("truncate", &self.path))
    }

    fn sync_file(&mut self) -> Result<(), Error> {
        self.may_claim()?;
        self.file.sync().map_err(|e| {
            self.lost = true;
            Error::io("sync", &self.path)(e)
        })
    }
}

fn is_sync(error: &Error) -> bool {
    matches!(error, Error::Io { doing: "sync", .. })
}

/// Makes the segment that begins with record `first`, in place of one that has no records. It has
/// its name when its header is durable, and this returns when its name is.
fn new_segment(
    dir: &dyn Directory,
    id: &JournalId,
    first: u64,
    size: u64,
) -> Result<Box<dyn Stored>, Error> {
    let name = names::segment(first);
    let make = |file: &dyn Stored| {
        let path = dir.path(&names::unfinished(&name)).display().to_string();
        file.allocate(size).map_err(Error::io("reserve space for", &path))?;
        file.write_at(&segment::encode(id, first), 0).map_err(Error::io("write", &path))?;
        file.sync().map_err(Error::io("sync", &path))
    };
    super::files::publish(dir, &name, make)
}
