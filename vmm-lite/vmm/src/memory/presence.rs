//! Whether all of a guest's memory is present: the precondition of every copy of a VM.
//!
//! A VM may run before its memory has arrived: pages follow by post-copy, or are loaded from a
//! snapshot while it runs. Access through the mapping is safe then, as it waits for the page.
//! Access that bypasses the mapping is not: a missing page looks like an untouched one, which is
//! zero, and a copy that treats it as such loses its content. So only [`Complete`] provides the set
//! of pages in use, and only memory that is all present provides a [`Complete`]. Memory that is
//! complete stays complete.
//!
//! Code that makes pages missing holds an [`Arriving`] until the last page has arrived. An
//! [`Arriving`] that is dropped before leaves the memory incomplete for good: it is never copied.

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

/// Proof that all of a guest's memory is present. Copies of a VM are made from this.
#[derive(Clone, Copy, Debug)]
pub struct Complete<'ram>(&'ram GuestRam);

impl<'ram> Complete<'ram> {
    /// The memory.
    #[must_use]
    pub fn ram(self) -> &'ram GuestRam {
        self.0
    }

    /// The pages that were ever touched; all others are zero. Reading the others would make them
    /// resident.
    ///
    /// # Errors
    /// What the host says.
    pub fn touched(self) -> io::Result<PageSet> {
        self.0.touched()
    }
}

/// Where missing memory comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Supply {
    /// The source of a move, by its address.
    Source(String),
    /// A snapshot file.
    Snapshot,
    /// A test, or code that does not name it.
    Unknown,
}

/// The missing part of a guest's memory.
#[derive(Clone, Debug)]
pub struct Absent {
    /// Where it comes from.
    pub supply: Supply,
    /// Upper bound of the missing pages.
    pub pages: usize,
    /// Since when no pages arrive, and why: the link to the source is down.
    pub away: Option<(Instant, String)>,
    /// The missing pages never arrive.
    pub lost: bool,
    /// Readable once the memory is complete, or never will be.
    pub settled: Option<Arc<EventFd>>,
}

/// Whether the memory is complete (`None`).
#[derive(Debug, Default)]
pub(super) struct Presence {
    absent: Mutex<Option<Absent>>,
    /// Number of missing pages. It changes often.
    pages: AtomicUsize,
}

impl Presence {
    fn lock(&self) -> MutexGuard<'_, Option<Absent>> {
        self.absent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Pages are about to be missing. Their origin is not known yet.
    pub(super) fn watched_for_missing(&self) {
        let (away, lost, settled) = Default::default();
        let unknown = Absent { supply: Supply::Unknown, pages: 0, away, lost, settled };
        self.lock().get_or_insert(unknown);
    }
}

impl GuestRam {
    /// The proof that all of it is present; `None` while pages are missing.
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

    /// Declares that at most `pages` pages will be missing. Call it before the first one is.
    ///
    /// # Errors
    /// The host's error if it refuses an event descriptor.
    pub fn expect(self: &Arc<Self>, supply: Supply, pages: usize) -> io::Result<Arriving> {
        let settled = Some(Arc::new(EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?));
        self.presence.pages.store(pages, Relaxed);
        let absent = Absent { supply, pages, away: None, lost: false, settled };
        *self.presence.lock() = Some(absent);
        Ok(Arriving { ram: Arc::clone(self) })
    }
}

/// Pages arrive. The code that receives them holds this.
#[derive(Debug)]
pub struct Arriving {
    ram: Arc<GuestRam>,
}

impl Arriving {
    /// Sets the number of pages that are still missing.
    pub fn left(&self, pages: usize) {
        self.ram.presence.pages.store(pages, Relaxed);
    }

    /// No pages arrive from now on, for this reason.
    pub fn away(&self, why: &str) {
        if let Some(absent) = &mut *self.ram.presence.lock() {
            absent.away.get_or_insert_with(|| (Instant::now(), why.to_owned()));
        }
    }

    /// Pages arrive again.
    pub fn back(&self) {
        if let Some(absent) = &mut *self.ram.presence.lock() {
            absent.away = None;
        }
    }

    /// The last page has arrived and no access waits any more: no page is watched.
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
        // A full counter is readable too.
        let _ = settled.write(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{Userfault, Watch};

    #[test]
    fn incomplete_memory_is_not_copied() {
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
        assert_eq!(absent.settled.unwrap().read().unwrap(), 1, "waiting threads are notified");
    }

    #[test]
    fn memory_whose_arrival_is_dropped_is_incomplete_for_good() {
        let ram = Arc::new(GuestRam::new(4 << 20).unwrap());
        drop(ram.expect(Supply::Snapshot, 1).unwrap());
        assert!(ram.complete().is_none() && ram.absent().unwrap().lost);
    }

    /// A missing page could be mistaken for zero, whatever made it missing.
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
