//! Reads a file in pieces, through a buffer of bounded size.

use crate::{
    Error,
    storage::{Directory, Stored},
};

/// How much is read at once, in bytes, unless more is asked for.
const PIECE: usize = 64 << 10;

/// A file, and some of its content.
pub struct Window {
    file: Box<dyn Stored>,
    path: String,
    /// Where the buffer's content is in the file.
    at: u64,
    buffer: Vec<u8>,
}

impl Window {
    /// Opens the file `name`.
    pub fn open(dir: &dyn Directory, name: &str) -> Result<Self, Error> {
        let path = dir.path(name).display().to_string();
        let file = dir.open(name).map_err(Error::io("open", &path))?;
        Ok(Self { file, path, at: 0, buffer: Vec::new() })
    }

    /// The file's path, for messages.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The file's size now, in bytes.
    pub fn size(&self) -> Result<u64, Error> {
        self.file.size().map_err(Error::io("read", &self.path))
    }

    /// The `length` bytes at `offset`, or fewer where the file ends.
    pub fn get(&mut self, offset: u64, length: usize) -> Result<&[u8], Error> {
        let inside =
            |n: u64| offset.checked_sub(self.at).filter(|b| b + n <= self.buffer.len() as u64);
        let begin = match inside(length as u64) {
            Some(begin) => begin as usize,
            None => {
                self.fill(offset, length)?;
                0
            }
        };
        let end = (begin + length).min(self.buffer.len());
        Ok(&self.buffer[begin..end])
    }

    /// Forgets what was read, so that the file is read again.
    pub fn forget(&mut self) {
        self.buffer.clear();
    }

    fn fill(&mut self, offset: u64, length: usize) -> Result<(), Error> {
        // No more memory than the file has content.
        let left = self.size()?.saturating_sub(offset);
        let wanted = (length.max(PIECE) as u64).min(left) as usize;
        self.buffer.clear();
        self.buffer.resize(wanted, 0);
        self.at = offset;
        let read = self.file.read_at(&mut self.buffer, offset);
        let n = read.map_err(Error::io("read", &self.path))?;
        self.buffer.truncate(n);
        if self.buffer.capacity() > 4 * PIECE.max(length) {
            self.buffer.shrink_to(PIECE);
        }
        Ok(())
    }
}
