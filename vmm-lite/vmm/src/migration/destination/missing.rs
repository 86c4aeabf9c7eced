//! Guest memory with missing pages: a thread that touches one waits until it has arrived.

use super::error::Error;
use crate::memory::{
    Arriving, Fault, GuestRam, PAGE, Supply, Userfault, UserfaultError, Watch, Writable, is_zero,
};
use migrate::wire::Run;
use std::{
    os::fd::{AsRawFd, RawFd},
    sync::Arc,
};
use vmm_lite_interface::layout::{IMAGE_BASE, PAGE_SIZE};

/// The first page that may be missing: those before it are the VMM's own.
const FIRST: usize = (IMAGE_BASE / PAGE_SIZE) as usize;

/// See the module. Dropping it releases all waiting threads.
#[derive(Debug)]
pub(super) struct Missing {
    userfault: Userfault,
    /// Where the pages come from.
    source: String,
    /// Present once pages may be missing. Dropped after the last thread that waits for one is
    /// released.
    arriving: Option<Arriving>,
    faults: Vec<Fault>,
}

impl Missing {
    /// Watching is possible, but not started yet.
    pub fn able(ram: &Arc<GuestRam>, source: String) -> Result<Self, UserfaultError> {
        let userfault = Userfault::open(ram)?;
        Ok(Self { userfault, source, arriving: None, faults: Vec::new() })
    }

    /// Whether pages may be missing.
    pub fn watching(&self) -> bool {
        self.arriving.is_some()
    }

    /// All pages have arrived: no access waits from now on, and the memory is complete.
    pub fn complete(self) {
        let Self { userfault, arriving, .. } = self;
        drop(userfault);
        if let Some(arriving) = arriving {
            arriving.complete();
        }
    }

    /// The receiver of the missing pages, if any may be missing.
    pub fn arriving(&self) -> Option<&Arriving> {
        self.arriving.as_ref()
    }

    /// Makes these pages missing.
    pub fn forget(&mut self, runs: &[Run]) -> Result<(), Error> {
        if runs.iter().any(|&(first, _)| first < FIRST as u64) {
            return Err(Error::OwnPage);
        }
        let ram = self.userfault.ram();
        if self.arriving.is_none() {
            let supply = Supply::Source(self.source.clone());
            let arriving = ram.expect(supply, ram.pages());
            self.arriving = Some(arriving.map_err(Error::Event)?);
            self.userfault.register(FIRST..ram.pages(), Watch::Missing)?;
        }
        for &(first, count) in runs {
            ram.discard(first as usize, count as usize).map_err(Error::Discard)?;
        }
        fail_point!("destination.forgot",
            else return Err(Error::Injected(crate::fail_point::injected())));
        Ok(())
    }

    /// Writes a page, missing or not, of a guest that has not run.
    pub fn write(
        &self,
        memory: Writable<'_>,
        number: usize,
        page: &[u8; PAGE],
    ) -> Result<(), Error> {
        if number >= FIRST && self.put(number, page)? {
            return Ok(());
        }
        Ok(memory.write_page(number, page)?)
    }

    /// Makes pages zero, missing or not, of a guest that has not run.
    pub fn clear(&self, memory: Writable<'_>, first: usize, count: usize) -> Result<(), Error> {
        for number in first..first + count {
            if number >= FIRST && self.zero(number, 1)? {
                continue;
            }
            memory.zero_page(number)?;
        }
        Ok(())
    }

    /// Writes a page if it is missing, and wakes the threads that wait for it. Returns whether it
    /// was.
    pub fn put(&self, number: usize, page: &[u8; PAGE]) -> Result<bool, Error> {
        if is_zero(page) {
            return self.zero(number, 1);
        }
        Ok(self.userfault.copy(number, std::slice::from_ref(page))? == 1)
    }

    /// Makes missing pages zero, and wakes the threads that wait for them. Returns whether all were
    /// missing.
    pub fn zero(&self, first: usize, count: usize) -> Result<bool, Error> {
        Ok(self.userfault.zero(first, count)? == count)
    }

    /// The pages that threads have begun to wait for.
    pub fn waited_for(&mut self) -> Result<Vec<usize>, Error> {
        self.userfault.read(&mut self.faults)?;
        Ok(self.faults.drain(..).map(|fault| fault.page).collect())
    }

    /// Readable when a thread has begun to wait.
    pub fn fd(&self) -> RawFd {
        self.userfault.as_raw_fd()
    }
}
