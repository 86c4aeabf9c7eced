//! What changes in a VM's memory while it is copied in rounds: the VM's side of
//! [`migrate::precopy`].
//!
//! The log begins full, and the first pass over the memory clears it piece by piece, each right
//! before it is read. An untouched page is zero, and no pass reads it; so a page that the guest
//! touches during the first pass, before its piece is cleared, is in neither the log nor the pass.
//! The end of the pass finds it by comparing which pages are touched.

use super::Error;
use crate::{
    kvm::{DirtyLog, DirtyView},
    memory::{Complete, PageSet},
    vm::{Paused, Vm},
};
use std::ops::Range;

/// The changes of a VM's memory, logged for one copy of it until this is dropped.
#[derive(Debug)]
pub struct Changes<'vm> {
    log: DirtyView<'vm>,
    complete: Complete<'vm>,
    /// Pages in use when the first pass began; `None` once it is over.
    touched: Option<PageSet>,
    /// The first page that the first pass has not reached.
    next: usize,
}

/// The last changes, of a stopped guest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Looked {
    /// Pages that changed since the log was last taken.
    pub dirty: PageSet,
    /// Pages whose content does not matter: all of those that are left to be sent, and possibly
    /// others.
    pub page_hints: PageSet,
}

impl<'vm> Changes<'vm> {
    /// Starts to log the changes of `vm`.
    ///
    /// # Errors
    /// KVM's error.
    pub fn start(vm: &'vm Vm, complete: Complete<'vm>) -> Result<Self, Error> {
        let log = vm.dirty_log().start_full()?;
        let touched = Some(PageSet::none(0));
        Ok(Self { log, complete, touched, next: 0 })
    }

    /// Begins the first pass: returns the pages in use, which it reads. All others are zero.
    ///
    /// # Errors
    /// The host's error.
    pub fn touched(&mut self) -> Result<PageSet, Error> {
        let touched = super::touched(self.complete)?;
        self.touched = Some(touched.clone());
        Ok(touched)
    }

    /// The next piece of memory in the first pass, whose pages are to be read now: from here on
    /// their changes are logged. `None` when the pass is over.
    ///
    /// # Errors
    /// The host's error.
    pub fn next_piece(&mut self) -> Result<Option<Range<usize>>, Error> {
        let Some(touched) = &self.touched else { return Ok(None) };
        let pages = self.complete.ram().pages();
        if self.next < pages {
            let piece = self.next..(self.next + DirtyLog::PIECE).min(pages);
            self.log.leave_out(piece.clone())?;
            self.next = piece.end;
            return Ok(Some(piece));
        }
        let mut since = super::touched(self.complete)?;
        since.take_out(touched);
        self.log.put_back(&since);
        self.touched = None;
        Ok(None)
    }

    /// The pages that changed since the last [`take`](Self::take), or since the first pass read
    /// them. They stay in the log.
    ///
    /// # Errors
    /// KVM's error.
    pub fn peek(&self) -> Result<PageSet, Error> {
        Ok(self.log.peek()?)
    }

    /// The same, and takes them out of the log: each costs the guest a fault when it writes to it
    /// again.
    ///
    /// # Errors
    /// KVM's error.
    pub fn take(&self) -> Result<PageSet, Error> {
        Ok(self.log.take()?)
    }

    /// Reads the last changes, in the blackout, of the VM, which is `paused`. `unsent` changed
    /// before and was not sent since.
    ///
    /// The work depends on what the guest wrote recently and on its page hints, which are bounded,
    /// and not on the size of its memory; except for KVM's own bitmap, which KVM returns only as a
    /// whole: see [`DirtyLog`].
    ///
    /// # Errors
    /// KVM's error; nothing is lost then.
    pub fn last(&self, paused: &Paused<'_>, unsent: &PageSet) -> Result<Looked, Error> {
        let dirty = self.log.peek()?;
        let mut left = unsent.clone();
        left.add(&dirty);
        Ok(Looked { page_hints: paused.page_hints_near(&left), dirty })
    }
}
