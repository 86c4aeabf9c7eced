//! Writes many pages at once into memory that may be untouched.

use super::{Error, GuestRam, PAGE, page_address};

impl GuestRam {
    /// Overwrites the pages from number `first` on.
    ///
    /// # Errors
    /// [`Error::Outside`]: nothing is written then.
    pub fn write_pages(&self, first: usize, from: &[[u8; PAGE]]) -> Result<(), Error> {
        let address = page_address(first);
        let len = from.as_flattened().len();
        self.slice(address, len)?;
        // An unmarked page was not written since marks were last taken, so most likely never.
        if from.len() > 1 && !self.marks().has(first) {
            self.make_resident(first, from.len());
        }
        self.write(address, from.as_flattened())
    }

    /// Makes pages resident by one call, where writing to them would take a page fault for each.
    fn make_resident(&self, first: usize, count: usize) {
        debug_assert!(first + count <= self.pages());
        let (at, len) = (first * PAGE, count * PAGE);
        // SAFETY: advice on pages that lie inside the mapping; it changes no content. Whatever the
        // call returns (the host may not support this advice), the writes bring the pages.
        unsafe { libc::madvise(self.host.add(at).cast(), len, libc::MADV_POPULATE_WRITE) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_written_and_marked() {
        let ram = GuestRam::new(4 << 20).unwrap();
        let pages: Vec<[u8; PAGE]> = (1..=70).map(|n| [n; PAGE]).collect();
        ram.write_pages(100, &pages).unwrap();
        ram.write_pages(168, &pages[..3]).unwrap();
        ram.write_pages(500, &pages[..1]).unwrap();
        let mut content = [0; PAGE];
        for (page, byte) in [(100, 1), (167, 68), (168, 1), (170, 3), (171, 0), (500, 1)] {
            ram.read_page(page, &mut content).unwrap();
            assert_eq!(content, [byte; PAGE], "page {page}");
        }
        let marks = ram.take_marks();
        assert!(marks.iter().eq((100..171).chain([500])));
    }

    #[test]
    fn pages_that_do_not_all_fit_are_not_written() {
        let ram = GuestRam::new(2 << 20).unwrap();
        assert!(matches!(ram.write_pages(511, &[[1; PAGE]; 2]), Err(Error::Outside { .. })));
        assert!(matches!(
            ram.write_pages(usize::MAX / PAGE, &[[1; PAGE]; 2]),
            Err(Error::Outside { .. })
        ));
        assert_eq!(ram.resident().unwrap(), 0);
    }
}
