//! Directories as `getdents64` gives them.

use super::Ino;
use hermit_abi::{DT_DIR, DT_REG, dirent64};

/// Where in an entry its name begins; a NUL follows the name.
const NAME: usize = core::mem::offset_of!(dirent64, d_name);

/// Writes entries into a buffer.
#[derive(Debug)]
pub struct Writer<'a> {
    to: &'a mut [u8],
    used: usize,
}

impl<'a> Writer<'a> {
    /// Into `to`.
    pub fn new(to: &'a mut [u8]) -> Self {
        Self { to, used: 0 }
    }

    /// Adds an entry. `false` when it does not fit.
    #[must_use]
    pub fn push(&mut self, name: &[u8], ino: Ino, is_directory: bool) -> bool {
        // The next entry is aligned for the numbers in it.
        let len = (NAME + name.len() + 1).next_multiple_of(align_of::<dirent64>());
        let Some(entry) = self.to.get_mut(self.used..self.used + len) else { return false };
        self.used += len;
        entry.fill(0);
        entry[..8].copy_from_slice(&ino.0.to_ne_bytes());
        entry[8..16].copy_from_slice(&(self.used as i64).to_ne_bytes());
        entry[16..18].copy_from_slice(&(len as u16).to_ne_bytes());
        entry[18] = if is_directory { DT_DIR } else { DT_REG };
        entry[NAME..NAME + name.len()].copy_from_slice(name);
        true
    }

    /// Bytes written.
    pub fn used(&self) -> usize {
        self.used
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_lie_as_the_abi_has_them() {
        assert_eq!(NAME, 19);
        let mut buffer = [0xff_u8; 100];
        let mut writer = Writer::new(&mut buffer);
        assert!(writer.push(b"file", Ino(7), false));
        assert!(writer.push(b"a directory", Ino(8), true));
        assert_eq!(writer.used(), 24 + 32);
        assert!(!writer.push(&[b'n'; 30], Ino(9), false));
        assert_eq!(writer.used(), 24 + 32);
        assert_eq!(buffer[..8], 7_u64.to_ne_bytes());
        assert_eq!(buffer[16..18], 24_u16.to_ne_bytes());
        assert_eq!(&buffer[18..24], b"\x08file\0");
        assert_eq!(buffer[24 + 18], DT_DIR);
        assert_eq!(&buffer[24 + 19..24 + 31], b"a directory\0");
    }
}
