//! The right to write to guest memory: a type, so that no thread does so under a guest that runs.

use super::{Error, GuestRam, Mmap, PAGE, Slice, is_zero, page_address};
use std::{ops::Deref, sync::atomic::Ordering::Relaxed};
use vm_memory::{Bytes, GuestAddress};

/// Guest memory that may be written to, as no instruction of the guest runs meanwhile. There is one
///
/// - for memory that has no guest yet: [`GuestRam::writable`]
/// - for a VM that is paused: [`Paused::memory`](crate::vm::Paused::memory)
/// - for a VM that has not run yet: [`Vm::unstarted_memory`](crate::vm::Vm::unstarted_memory)
/// - for the devices, when the guest stands at an exit: the vCPU thread makes it
///
/// Besides, pages that are [missing](super::Userfault) are put in place while the guest runs, and
/// requests to the guest are written to the control page, whose fields are atomic.
#[derive(Clone, Copy, Debug)]
pub struct Writable<'r>(&'r GuestRam);

impl Deref for Writable<'_> {
    type Target = GuestRam;

    fn deref(&self) -> &GuestRam {
        self.0
    }
}

impl GuestRam {
    /// The right to write to memory that no other thread has.
    #[must_use]
    pub fn writable(&mut self) -> Writable<'_> {
        Writable(self)
    }

    /// The right to write to memory whose guest does not run for as long as this is held.
    pub(crate) fn writable_while_stopped(&self) -> Writable<'_> {
        Writable(self)
    }
}

impl<'r> Writable<'r> {
    /// The `vm-memory` object, for rust-vmm's crates.
    #[must_use]
    pub fn mmap(self) -> &'r Mmap {
        &self.0.mmap
    }

    /// A window of `len` bytes at `address`.
    ///
    /// # Errors
    /// [`Error::Outside`].
    pub fn slice(self, address: u64, len: usize) -> Result<Slice<'r>, Error> {
        self.0.window(address, len)
    }

    /// Copies into guest memory.
    ///
    /// # Errors
    /// [`Error::Outside`].
    pub fn write(self, address: u64, from: &[u8]) -> Result<(), Error> {
        let len = from.len() as u64;
        self.0
            .mmap
            .write_slice(from, GuestAddress(address))
            .map_err(|_| Error::Outside { address, len })
    }

    /// Overwrites page number `page`.
    ///
    /// # Errors
    /// [`Error::Outside`].
    pub fn write_page(self, page: usize, from: &[u8; PAGE]) -> Result<(), Error> {
        self.write(page_address(page), from)
    }

    /// Overwrites the pages from number `first` on, which may be untouched.
    ///
    /// # Errors
    /// [`Error::Outside`]: nothing is written then.
    pub fn write_pages(self, first: usize, from: &[[u8; PAGE]]) -> Result<(), Error> {
        let address = page_address(first);
        let len = from.as_flattened().len();
        self.slice(address, len)?;
        // An unmarked page was not written since marks were last taken, so most likely never.
        if from.len() > 1 && !self.0.marks().has(first) {
            self.0.make_resident(first, from.len());
        }
        self.write(address, from.as_flattened())
    }

    /// Makes page number `page` zero. Untouched memory stays untouched.
    ///
    /// # Errors
    /// [`Error::Outside`].
    pub fn zero_page(self, page: usize) -> Result<(), Error> {
        if !self.forgot.load(Relaxed) && !self.marks().has(page) && page < self.pages() {
            return Ok(());
        }
        let mut content = [0; PAGE];
        self.read_page(page, &mut content)?;
        if !is_zero(&content) {
            self.write_page(page, &[0; PAGE])?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_written_and_marked() {
        let mut ram = GuestRam::new(4 << 20).unwrap();
        let pages: Vec<[u8; PAGE]> = (1..=70).map(|n| [n; PAGE]).collect();
        ram.writable().write_pages(100, &pages).unwrap();
        ram.writable().write_pages(168, &pages[..3]).unwrap();
        ram.writable().write_pages(500, &pages[..1]).unwrap();
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
        let mut ram = GuestRam::new(2 << 20).unwrap();
        let memory = ram.writable();
        assert!(matches!(memory.write_pages(511, &[[1; PAGE]; 2]), Err(Error::Outside { .. })));
        assert!(matches!(
            memory.write_pages(usize::MAX / PAGE, &[[1; PAGE]; 2]),
            Err(Error::Outside { .. })
        ));
        assert_eq!(ram.resident().unwrap(), 0);
    }
}
