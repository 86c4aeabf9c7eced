//! Reads the last changes of a guest's memory, in the blackout.
//!
//! The work depends on what the guest wrote recently and on its page hints, which are bounded, and
//! not on the size of its memory; except for KVM's own bitmap, which KVM returns only as a whole:
//! see [`DirtyLog`](crate::kvm::DirtyLog).

use crate::{
    kvm::{self, DirtyView},
    vm::Paused,
};
use migrate::page_set::PageSet;

/// The result.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Looked {
    /// Pages that changed since the log was last taken.
    pub dirty: PageSet,
    /// Pages whose content does not matter: all of those that are left to be sent, and possibly
    /// others.
    pub page_hints: PageSet,
}

/// Reads the changes of a `paused` VM, whose `log` it is. `unsent` changed before and was not sent
/// since.
///
/// # Errors
/// [`kvm::Error`]; nothing is lost then.
pub fn look(
    log: &DirtyView<'_>,
    paused: &Paused<'_>,
    unsent: &PageSet,
) -> Result<Looked, kvm::Error> {
    let dirty = log.peek()?;
    let mut left = unsent.clone();
    left.add(&dirty);
    Ok(Looked { page_hints: paused.page_hints_near(&left), dirty })
}
