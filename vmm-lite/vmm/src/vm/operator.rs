//! An operator's requests on a VM: to pause, resume and end it. They hold whatever operation is in
//! progress: an operation that ends leaves a paused VM paused, and a move carries the pause along.

use super::{End, Error, Slow, StopReason, Vm, VmPhase};
use std::{
    os::fd::AsRawFd,
    sync::atomic::Ordering::SeqCst,
    time::{Duration, Instant},
};
use vcpu_control::OtherHolder;

/// A VM that an operator paused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stopped {
    /// Whether the guest itself reported that it was ready.
    pub quiescent: bool,
    /// From the request until the vCPU was stopped.
    pub took: Duration,
}

impl Vm {
    /// Pauses it until it is [resumed](Self::resume_for_operator). Before that the guest is asked
    /// to quiesce for at most `quiesce`, if that is given.
    ///
    /// # Errors
    /// [`Error::Ended`], [`Error::HandedOver`]: it was not paused then.
    pub fn pause_for_operator(
        &self,
        quiesce: Option<Duration>,
        slow: &mut Slow<'_>,
    ) -> Result<Stopped, Error> {
        let requested = Instant::now();
        self.shared.hold(true)?;
        loop {
            match self.stop_vcpu(quiesce, OtherHolder::Report) {
                Ok(paused) => {
                    let (_, stopped) = paused.times();
                    let quiescent = paused.quiescent();
                    let took = stopped.saturating_duration_since(requested);
                    // It was resumed meanwhile, or stays paused.
                    paused.resume_here()?;
                    return Ok(Stopped { quiescent, took });
                }
                // An operation has stopped it, and leaves it paused or carries the pause along.
                Err(Error::Busy(_)) if self.shared.wait_decided(slow)? => {
                    return Ok(Stopped { quiescent: false, took: requested.elapsed() });
                }
                Err(Error::Busy(_)) => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Resumes a paused VM; if an operation is in progress, as soon as that ends.
    ///
    /// # Errors
    /// [`Error::NotPaused`], [`Error::Ended`], [`Error::HandedOver`].
    pub fn resume_for_operator(&self, slow: &mut Slow<'_>) -> Result<(), Error> {
        let held = self.shared.hold(false)?;
        if !held && matches!(self.phase(), VmPhase::Running) {
            return Err(Error::NotPaused);
        }
        loop {
            match self.hold() {
                Ok(paused) => return paused.resume_here(),
                // The operation that holds it resumes it; or it is stopped only by that operation.
                Err(Error::Busy(_)) if !held => return Err(Error::NotPaused),
                Err(Error::Busy(_)) => {
                    if matches!(self.phase(), VmPhase::Running) || self.shared.wait_decided(slow)? {
                        return Ok(());
                    }
                }
                Err(e) => return Err(e),
            }
        }
    }

    /// Ends it as soon as the vCPU can be stopped. The guest is not asked. With `force` also where
    /// the other host may need what only this process has.
    ///
    /// # Errors
    /// [`Error::HandedOver`].
    pub fn end_for_operator(&self, reason: StopReason, force: bool) -> Result<(), Error> {
        if !force {
            self.shared.may_end()?;
        }
        self.end(End::Stopped(reason));
        Ok(())
    }

    /// The operator states that a VM whose commit was sent runs nowhere else and never will: it
    /// continues here, as it was at the commit.
    ///
    /// # Errors
    /// [`Error::NotHandedOver`]; [`Error::Answers`]: the other host answers otherwise;
    /// [`Error::Ended`].
    pub fn vouch(&self, slow: &mut Slow<'_>) -> Result<(), Error> {
        if self.shared.may_end().is_ok() {
            return Err(Error::NotHandedOver);
        }
        self.shared.wait_vouched(slow)
    }

    /// Rejects the operator override for the operation in progress: the other host answers.
    pub fn refuse_vouching(&self) {
        self.shared.refuse_vouching();
    }

    /// Whether it was ever resumed by operator override.
    #[must_use]
    pub fn was_vouched_for(&self) -> bool {
        self.shared.record.was_vouched_for.load(SeqCst)
    }

    /// Records that it was.
    pub fn note_vouched_for(&self) {
        self.shared.record.was_vouched_for.store(true, SeqCst);
    }

    /// A descriptor that becomes readable once an operator [vouches](Self::vouch) for the VM.
    #[must_use]
    pub fn vouched_fd(&self) -> i32 {
        self.shared.decisions.vouched.as_raw_fd()
    }
}
