//! The log of pages that change, with a view of it for each user.
//!
//! The log is KVM's bitmap of the guest's writes together with [`GuestRam`]'s marks of the VMM's
//! writes. There is one of each, and several users may log at a time (a move, a snapshot, a
//! measurement): each has a [`DirtyView`] and sees every page that changed since it last took its
//! own. What one user takes out of the log becomes pending for the others (`views`).
//!
//! Reading the log and clearing it are two steps where KVM supports that
//! (`KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2`): the last round of a move only reads, since clearing would
//! write-protect pages for a guest that is about to leave, and a move that fails after it has lost
//! nothing (rule R2).

mod slot;
mod views;

use super::Error;
use crate::memory::{GuestRam, PageSet};
use kvm_ioctls::VmFd;
use slot::Slot;
use std::{
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use views::Views;

/// The memory slot of a VM and its dirty log. Usable from any thread, also while the vCPU runs.
///
/// Locks: one, held while the log is read or cleared. Nothing else is locked under it, so it may be
/// taken under any other lock.
#[derive(Debug)]
pub struct DirtyLog {
    slot: Slot,
    ram: Arc<GuestRam>,
    log: Mutex<Log>,
}

/// What is known of the log, consistent under the lock.
#[derive(Debug)]
struct Log {
    /// Whether KVM logs: while there is a user, and after that if KVM refused to stop.
    on: bool,
    /// The buffer for KVM's bitmap, kept while KVM logs: untouched memory costs a page fault for
    /// each page of the buffer, ten times the cost of the copy.
    bitmap: Vec<u64>,
    views: Views,
}

impl DirtyLog {
    /// This many pages of a [full](Self::start_full) log are cleared at a time, right before they
    /// are read: after that the guest takes a fault for each of them that it writes to.
    pub const PIECE: usize = 256;

    pub(super) fn new(vm: Arc<VmFd>, ram: Arc<GuestRam>) -> Result<Self, Error> {
        let slot = Slot::new(vm, Arc::clone(&ram))?;
        let views = Views::none(ram.pages());
        Ok(Self { slot, ram, log: Mutex::new(Log { on: false, bitmap: Vec::new(), views }) })
    }

    /// Starts logging for one more user: from now on every page that changes will be in a set that
    /// its view returns. So may be any page that was not [left out](DirtyView::leave_out) since:
    /// the log begins full where KVM supports that, as an empty one would at once slow the guest
    /// down by a fault for each page that it writes to.
    ///
    /// # Errors
    /// [`Error::Call`].
    pub fn start_full(&self) -> Result<DirtyView<'_>, Error> {
        let mut log = self.lock();
        if !log.on {
            self.ram.forget_marks();
            log.bitmap = self.slot.start()?;
            log.on = true;
        }
        Ok(DirtyView { log: self, id: log.views.begin() })
    }

    /// The same, with no page in the view that has not changed since. The guest takes a fault for
    /// the next write to each page.
    ///
    /// # Errors
    /// [`Error::Call`].
    pub fn start_empty(&self) -> Result<DirtyView<'_>, Error> {
        let view = self.start_full()?;
        drop(view.take()?);
        Ok(view)
    }

    /// Number of users. While there is none, nothing is logged.
    #[must_use]
    pub fn users(&self) -> usize {
        self.lock().views.count()
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A user's view of the log. The log stops when the last view is dropped.
#[derive(Debug)]
#[must_use = "the log stops when the last view is dropped"]
pub struct DirtyView<'log> {
    log: &'log DirtyLog,
    id: u64,
}

impl DirtyView<'_> {
    /// Takes the set of pages that changed since the last take: a page that changes from now on is
    /// in the next set. Each page taken costs the guest a fault when it writes to it again.
    ///
    /// # Errors
    /// [`Error::Call`]. Nothing is lost then.
    pub fn take(&self) -> Result<PageSet, Error> {
        let DirtyLog { slot, ram, .. } = self.log;
        let Log { bitmap, views, .. } = &mut *self.log.lock();
        let mut taken = slot.read(bitmap)?;
        if slot.manual {
            slot.clear_read(&taken, bitmap)?;
        }
        // After KVM's part, so that no error loses them.
        taken.add(&ram.take_marks());
        Ok(views.took(self.id, taken))
    }

    /// The set that [`take`](Self::take) would return. The log is left unchanged.
    ///
    /// # Errors
    /// [`Error::Call`].
    pub fn peek(&self) -> Result<PageSet, Error> {
        let DirtyLog { slot, ram, .. } = self.log;
        let Log { bitmap, views, .. } = &mut *self.log.lock();
        let mut seen = slot.read(bitmap)?;
        if !slot.manual {
            // Reading has cleared it.
            views.keep(&seen);
        }
        seen.add(&ram.look_at_marks());
        Ok(views.saw(self.id, seen))
    }

    /// Clears these pages from the view: the user is about to read their content, and the view has
    /// them again when they change. Both ends of the range are multiples of 64, or its end is that
    /// of the memory.
    ///
    /// # Errors
    /// [`Error::Call`]. Nothing is lost then.
    pub fn leave_out(&self, pages: Range<usize>) -> Result<(), Error> {
        let slot = &self.log.slot;
        let Log { bitmap, views, .. } = &mut *self.log.lock();
        let mut cleared = PageSet::none(0);
        if !slot.initially_set {
            // The log began empty.
        } else if views.has_others(self.id) {
            // They need to know which pages were in it, and a page that the guest writes to after
            // the log is read must stay in it for them.
            cleared = slot.read(bitmap)?;
            slot.clear_range(pages.clone(), bitmap)?;
        } else {
            slot.clear_all(pages.clone())?;
        }
        views.left_out(self.id, pages, cleared);
        Ok(())
    }

    /// Returns taken pages to the view that did not reach their destination.
    pub fn put_back(&self, pages: &PageSet) {
        self.log.lock().views.put_back(self.id, pages);
    }
}

impl Drop for DirtyView<'_> {
    fn drop(&mut self) {
        let mut log = self.log.lock();
        if !log.views.end(self.id) {
            return;
        }
        match self.log.slot.stop() {
            Ok(()) => (log.on, log.bitmap) = (false, Vec::new()),
            // KVM continues to log, and the next user finds what changes from now on.
            Err(e) => tracing::warn!("{}", crate::host::with_causes(&e)),
        }
    }
}
