//! Error texts of cancelled moves.

use crate::vm::CalledOff;
use migrate::source::Failure;

/// A client cancelled it.
pub const BY_CANCEL: &str = "by `vmm-lite cancel`";
/// The observer disconnected.
pub const OBSERVER_GONE: &str = "its client disconnected";
/// The VM has ended.
pub const VM_ENDED: &str = "the VM has ended";

/// Why a move that was cancelled `during` this failed.
#[must_use]
pub fn failure(called_off: CalledOff, during: &'static str) -> Failure {
    match called_off {
        CalledOff::Cancelled => Failure::Cancelled(BY_CANCEL.into()),
        CalledOff::ObserverGone => Failure::Cancelled(OBSERVER_GONE.into()),
        CalledOff::Ended => Failure::Here(VM_ENDED.into()),
        CalledOff::Timeout(timeout) => Failure::Timeout { timeout, during },
    }
}
