//! Which of a guest's pages the host holds.

use super::{GuestRam, PAGE, PageSet, samples::RING};
use std::{
    fs::File,
    io,
    ops::Range,
    os::{
        fd::AsRawFd,
        unix::fs::{FileExt, MetadataExt},
    },
};
use vmm_lite_interface::layout::PAGE_SIZE;

impl GuestRam {
    /// Bytes of RAM that are resident.
    ///
    /// # Errors
    /// The error of `fstat`.
    pub fn resident(&self) -> io::Result<u64> {
        Ok(self.file().metadata()?.blocks() * 512)
    }

    /// The pages that were ever touched; all others are zero or missing. Callers use
    /// [`Complete::touched`](super::Complete::touched), which guarantees that none is missing.
    pub(super) fn touched(&self) -> io::Result<PageSet> {
        let mut set = PageSet::none(self.pages());
        let mut at = 0;
        while let Some(start) = self.seek(at, libc::SEEK_DATA)? {
            let end = self.seek(start, libc::SEEK_HOLE)?.unwrap_or(self.size);
            let first = start / PAGE_SIZE;
            set.insert_runs(&[(first, end.div_ceil(PAGE_SIZE) - first)]);
            at = end;
        }
        if let Some(pagemap) = &self.pagemap {
            self.add_written(pagemap, &mut set)?;
        }
        // Not part of the guest's state: see `samples`.
        RING.for_each(|page| {
            set.remove(page);
        });
        Ok(set)
    }

    /// The first run of pages from `from` on, and before `end`, that were touched; what lies
    /// between is zero, or untouched in a copy of a template. All pages if the host does not say.
    pub(crate) fn next_touched(&self, from: usize, end: usize) -> Option<Range<usize>> {
        if from >= end {
            return None;
        }
        if self.pagemap.is_some() {
            return Some(from..end);
        }
        let page = |address: u64, up: u64| ((address + up) / PAGE_SIZE) as usize;
        let Ok(start) = self.seek(from as u64 * PAGE_SIZE, libc::SEEK_DATA) else {
            return Some(from..end);
        };
        let start = start?;
        let hole = self.seek(start, libc::SEEK_HOLE).ok().flatten().unwrap_or(self.size);
        let (first, last) = (page(start, 0).max(from), page(hole, PAGE_SIZE - 1).min(end));
        (first < last).then_some(first..last)
    }

    /// Adds the pages that are private to this memory, which its file does not have.
    fn add_written(&self, pagemap: &File, set: &mut PageSet) -> io::Result<()> {
        const PRESENT_OR_SWAPPED: u64 = 3 << 62;
        let mut entries = [0; 8 * 512];
        let first = self.host as u64 / PAGE_SIZE;
        for start in (0..self.pages()).step_by(512) {
            let count = (self.pages() - start).min(512);
            let bytes = &mut entries[..count * 8];
            pagemap.read_exact_at(bytes, (first + start as u64) * 8)?;
            for (n, entry) in bytes.as_chunks::<8>().0.iter().enumerate() {
                if u64::from_ne_bytes(*entry) & PRESENT_OR_SWAPPED != 0 {
                    set.insert(start + n);
                }
            }
        }
        Ok(())
    }

    /// `lseek` on the memfd; `None` past the last data.
    fn seek(&self, from: u64, whence: libc::c_int) -> io::Result<Option<u64>> {
        // SAFETY: moves a file position that nothing else uses; the result is checked.
        match unsafe { libc::lseek(self.file().as_raw_fd(), from as libc::off_t, whence) } {
            at if at >= 0 => Ok(Some(at as u64)),
            _ => match io::Error::last_os_error() {
                e if e.raw_os_error() == Some(libc::ENXIO) => Ok(None),
                e => Err(e),
            },
        }
    }

    /// Returns the `count` pages from `first` on to the host: their content is lost, and they read
    /// as zero.
    ///
    /// # Errors
    /// The host's error; [`io::ErrorKind::InvalidInput`] for pages outside.
    pub fn discard(&self, first: usize, count: usize) -> io::Result<()> {
        if first.checked_add(count).is_none_or(|end| end > self.pages()) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        let (at, len) = ((first * PAGE) as libc::off_t, (count * PAGE) as libc::off_t);
        // SAFETY: changes only the content of a file whose every byte may change at any time.
        match unsafe { libc::fallocate(self.file().as_raw_fd(), mode, at, len) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::is_zero, *};

    #[test]
    fn untouched_memory_stays_so() {
        let ram = GuestRam::new(64 << 20).unwrap();
        assert!(ram.touched().unwrap().is_empty());
        (0..ram.pages()).for_each(|page| ram.writable_while_stopped().zero_page(page).unwrap());
        assert_eq!(ram.resident().unwrap(), 0);
        ram.writable_while_stopped().write_page(7, &[1; PAGE]).unwrap();
        ram.writable_while_stopped().write_page(ram.pages() - 1, &[1; PAGE]).unwrap();
        assert_eq!(ram.touched().unwrap().iter().collect::<Vec<_>>(), [7, ram.pages() - 1]);
        ram.writable_while_stopped().zero_page(7).unwrap();
        let mut page = [1; PAGE];
        ram.read_page(7, &mut page).unwrap();
        assert!(is_zero(&page));
        // Which pages were written is not known then, so all are read.
        ram.writable_while_stopped().write_page(8, &[1; PAGE]).unwrap();
        ram.forget_marks();
        ram.writable_while_stopped().zero_page(8).unwrap();
        ram.read_page(8, &mut page).unwrap();
        assert!(is_zero(&page));
        assert!(ram.writable_while_stopped().zero_page(ram.pages()).is_err());
    }
}
