//! For how long a connection that is being made is wanted: a move can be called off before there is one.

use super::connection::LinkError;
use crate::host::poll::{Watch, wait_some};
use migrate::source::Failure;
use std::{
    os::fd::RawFd,
    time::{Duration, Instant},
};

/// Why a move is called off: somebody else said so.
pub const BY_CANCEL: &str = "by `vmm-lite cancel`";
/// The same: nobody waits for it any more.
pub const ASKER_GONE: &str = "whoever asked for it went away";

/// Why a move cannot be made: there is nothing left to move.
pub const VM_ENDED: &str = "the VM has ended";

/// Who may call it off, and how long it may take.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Readable when somebody calls it off; negative: nobody can.
    pub cancel: RawFd,
    /// Hangs up when whoever asked for it goes away; negative: nobody waits for it.
    pub asker: RawFd,
    /// Readable when the VM has ended; negative: that is no matter.
    pub ended: RawFd,
    /// When it was asked for, and how long after that it must be done.
    pub within: Option<(Instant, Duration)>,
}

impl Wanted {
    /// In any case, for ever.
    pub const ALWAYS: Self = Self { cancel: -1, asker: -1, ended: -1, within: None };

    /// Waits until one of `watched` is ready, at most `patience`; says which are.
    ///
    /// # Errors
    /// [`LinkError::GivenUp`] when it is not wanted any more, [`LinkError::Io`].
    pub fn wait(&self, watched: &[Watch], patience: Duration) -> Result<Vec<bool>, LinkError> {
        let callers =
            [Watch::Readable(self.cancel), Watch::HungUp(self.asker), Watch::Readable(self.ended)];
        let all = [&callers, watched].concat();
        let end = Instant::now() + patience;
        loop {
            let now = Instant::now();
            let mut left = end.saturating_duration_since(now);
            if let Some((asked, timeout)) = self.within {
                let in_all = (asked + timeout).saturating_duration_since(now);
                if in_all.is_zero() {
                    return Err(Failure::Timeout { timeout, during: "connecting" }.into());
                }
                left = left.min(in_all);
            }
            match &wait_some(&all, left)?[..] {
                [true, ..] => return Err(Failure::Cancelled(BY_CANCEL.into()).into()),
                [_, true, ..] => return Err(Failure::Cancelled(ASKER_GONE.into()).into()),
                [_, _, true, ..] => return Err(Failure::Here(VM_ENDED.into()).into()),
                [_, _, _, ready @ ..] if ready.contains(&true) || end <= Instant::now() => {
                    return Ok(ready.to_vec());
                }
                _ => {}
            }
        }
    }
}
