//! Whether all of a guest's memory is here: the gate before everything that copies a VM.
//!
//! A VM may run before its memory has come: pages follow a move, or are loaded from a snapshot
//! while it runs. Access through the mapping is no problem then, as it waits for the page. What
//! looks past the mapping is: a page that has not come looks like one that nobody ever touched,
//! which is zero, and a copy that takes it for that loses it. So the set of pages in use is only to
//! be had from a [`Complete`], which only memory that is all here gives out. Memory that is
//! complete once stays so.
//!
//! Code that makes pages missing holds an [`Arriving`] until the last has come. One that is dropped
//! before leaves the memory incomplete for good: it is never copied.

use super::{GuestRam, PageSet};
use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Instant,
};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// Proof that all of a guest's memory is here. Copies of a VM are made from this.
#[derive(Clone, Copy, Debug)]
pub struct Complete<'ram>(&'ram GuestRam);

impl<'ram> Complete<'ram> {
    /// The memory.
    #[must_use]
    pub fn ram(self) -> &'ram GuestRam {
        self.0
    }

    /// The pages that were ever touched; all others are zero. Looking at those would make them
    /// resident.
    ///
    /// # Errors
    /// What the host says.
    pub fn touched(self) -> io::Result<PageSet> {
        self.0.touched()
    }
}

/// Where memory comes from that is not here yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Supply {
    /// The source of a move, by its address.
    Source(String),
    /// A snapshot file.
    Snapshot,
    /// A test, or code that does not say.
    Unknown,
}

/// What of a guest's memory is not here.
#[derive(Clone, Debug)]
pub struct Absent {
    /// Where it comes from.
    pub supply: Supply,
    /// Pages that are missing at most.
    pub pages: usize,
    /// Since when nothing brings them, and why: the link to the source is down.
    pub away: Option<(Instant, String)>,
    /// It never comes.
    pub lost: bool,
    /// Readable once the memory is complete, or never will be.
    pub settled: Option<Arc<EventFd>>,
}

/// Of one memory: complete (`None`) or not.
#[derive(Debug, Default)]
pub(super) struct Presence {
    absent: Mutex<Option<Absent>>,
    /// Pages that are missing, which changes often.
    pages: AtomicUsize,
}

impl Presence {
    fn lock(&self) -> MutexGuard<'_, Option<Absent>> {
        self.absent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Pages are about to be missing. What brings them is not known yet.
    pub(super) fn watched_for_missing(&self) {
        let (away, lost, settled) = Default::default();
        let unknown = Absent { supply: Supply::Unknown, pages: 0, away, lost, settled };
        self.lock().get_or_insert(unknown);
    }
}

impl GuestRam {
    /// The proof that all of it is here; `None` while pages are missing.
    #[must_use]
    pub fn complete(&self) -> Option<Complete<'_>> {
        self.presence.lock().is_none().then_some(Complete(self))
    }

    /// What is missing; `None` if nothing is.
    #[must_use]
    pub fn absent(&self) -> Option<Absent> {
        let pages = self.presence.pages.load(Relaxed);
        self.presence.lock().clone().map(|absent| Absent { pages, ..absent })
    }

    /// Says that at most `pages` pages are going to be missing: before the first of them is.
    ///
    /// # Errors
    /// When the host has no event descriptor to give.
    pub fn expect(self: &Arc<Self>, supply: Supply, pages: usize) -> io::Result<Arriving> {
        let settled = Some(Arc::new(EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?));
        self.presence.pages.store(pages, Relaxed);
        let absent = Absent { supply, pages, away: None, lost: false, settled };
        *self.presence.lock() = Some(absent);
        Ok(Arriving { ram: Arc::clone(self) })
    }
}

/// Pages arrive. To be held by what brings them.
#[derive(Debug)]
pub struct Arriving {
    ram: Arc<GuestRam>,
}

impl Arriving {
    /// The number of pages that are still missing.
    pub fn left(&self, pages: usize) {
        self.ram.presence.pages.store(pages, Relaxed);
    }

    /// Nothing brings them from now on, for this reason.
    pub fn away(&self, why: &str) {
        if let Some(absent) = &mut *self.ram.presence.lock() {
            absent.away.get_or_insert_with(|| (Instant::now(), why.to_owned()));
        }
    }

    /// They are brought again.
    pub fn back(&self) {
        if let Some(absent) = &mut *self.ram.presence.lock() {
            absent.away = None;
        }
    }

    /// The last has come, and no access waits any more: no page is watched.
    pub fn complete(self) {
        let absent = self.ram.presence.lock().take();
        settle(absent.as_ref());
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        let mut absent = self.ram.presence.lock();
        if let Some(absent) = &mut *absent {
            absent.lost = true;
        }
        settle(absent.as_ref());
    }
}

fn settle(absent: Option<&Absent>) {
    if let Some(settled) = absent.and_then(|absent| absent.settled.as_ref()) {
        // A counter that is full is readable too.
        let _ = settled.write(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{Userfault, Watch};

    #[test]
    fn memory_that_is_not_all_here_is_not_copied() {
        let ram = Arc::new(GuestRam::new(4 << 20).unwrap());
        assert!(ram.complete().is_some());
        let arriving = ram.expect(Supply::Source("there".into()), 7).unwrap();
        assert!(ram.complete().is_none());
        arriving.left(3);
        arriving.away("the link broke");
        let absent = ram.absent().unwrap();
        assert_eq!((absent.pages, absent.away.is_some(), absent.lost), (3, true, false));
        arriving.back();
        assert!(ram.absent().unwrap().away.is_none());
        arriving.complete();
        assert!(ram.complete().is_some() && ram.absent().is_none());
        assert_eq!(absent.settled.unwrap().read().unwrap(), 1, "who waits is told");
    }

    #[test]
    fn memory_whose_pages_nobody_brings_any_more_is_incomplete_for_good() {
        let ram = Arc::new(GuestRam::new(4 << 20).unwrap());
        drop(ram.expect(Supply::Snapshot, 1).unwrap());
        assert!(ram.complete().is_none() && ram.absent().unwrap().lost);
    }

    /// A page that is missing could be taken for zero, whatever made it so.
    #[test]
    fn pages_cannot_be_missing_without_the_memory_being_incomplete() {
        let ram = Arc::new(GuestRam::new(4 << 20).unwrap());
        let Ok(userfault) = Userfault::open(&ram) else { return };
        userfault.register(0..ram.pages(), Watch::Writes).unwrap();
        assert!(ram.complete().is_some());
        userfault.unregister(0..ram.pages()).unwrap();
        userfault.register(0..ram.pages(), Watch::Missing).unwrap();
        assert!(ram.complete().is_none());
    }
}
