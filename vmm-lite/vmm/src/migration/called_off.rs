//! What is said of a move that was called off.

use crate::vm::CalledOff;
use migrate::source::Failure;

/// A client cancelled it.
pub const BY_CANCEL: &str = "by `vmm-lite cancel`";
/// Nobody waits for it any more.
pub const OBSERVER_GONE: &str = "whoever asked for it went away";
/// There is nothing left to move.
pub const VM_ENDED: &str = "the VM has ended";

/// Why a move failed that was called off `during` this.
#[must_use]
pub fn failure(called_off: CalledOff, during: &'static str) -> Failure {
    match called_off {
        CalledOff::Cancelled => Failure::Cancelled(BY_CANCEL.into()),
        CalledOff::ObserverGone => Failure::Cancelled(OBSERVER_GONE.into()),
        CalledOff::Ended => Failure::Here(VM_ENDED.into()),
        CalledOff::Timeout(timeout) => Failure::Timeout { timeout, during },
    }
}
