//! The last look at a guest's memory, at what has changed: in the blackout.
//!
//! What is done here follows what the guest wrote of late and what it has given up, of which there
//! is a bound, and not how large its memory is; but for KVM's own bitmap, which it gives only as a
//! whole: see [`DirtyLog`](crate::kvm::DirtyLog).

use crate::{
    kvm,
    vm::{Paused, Vm},
};
use migrate::pages::Pages;

/// What is found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Looked {
    /// Pages that changed since the log was last taken.
    pub dirty: Pages,
    /// Pages whose content does not matter: all of those that are left to be sent, and maybe
    /// others.
    pub page_hints: Pages,
}

/// Looks at `vm`, which is `paused`, and of which `unsent` was not sent since it changed before.
///
/// # Errors
/// [`kvm::Error`]; nothing is lost then.
pub fn look(vm: &Vm, paused: &Paused<'_>, unsent: &Pages) -> Result<Looked, kvm::Error> {
    let dirty = vm.dirty_log().peek()?;
    let mut left = unsent.clone();
    left.add(&dirty);
    Ok(Looked { page_hints: paused.page_hints_near(&left), dirty })
}
