//! Decisions about a VM: by its operator, and by a move.

use super::{Leaving, slow::Slow};
use crate::vm::{Error, shared::Shared};

impl Shared {
    /// Records that the operator wants it paused, or no longer does. Returns the previous value.
    ///
    /// # Errors
    /// [`Error::Ended`]; [`Error::HandedOver`] after the commit of a move.
    pub(in crate::vm) fn hold(&self, held: bool) -> Result<bool, Error> {
        let mut control = self.lock_control();
        control.ended()?;
        if control.committed() {
            return Err(control.handed_over());
        }
        let before = control.held || control.kept;
        control.held = held;
        control.kept &= held;
        Ok(before)
    }

    /// Whether it stays paused when it is resumed.
    pub(in crate::vm) fn stays_paused(&self) -> bool {
        let control = self.lock_control();
        control.held || control.kept
    }

    /// Records that an operation keeps it paused beyond its end, or not after all.
    pub(in crate::vm) fn keep(&self, kept: bool) {
        self.lock_control().kept = kept;
    }

    /// Records its destination.
    pub(in crate::vm) fn set_destination(&self, to: String) {
        self.lock_control().destination = Some(to);
    }

    /// Whether it may end here without loss.
    ///
    /// # Errors
    /// [`Error::HandedOver`]: the destination may need what only this process has.
    pub(in crate::vm) fn may_end(&self) -> Result<(), Error> {
        let control = self.lock_control();
        if control.committed() && control.ended().is_ok() {
            Err(control.handed_over())
        } else {
            Ok(())
        }
    }

    /// Whether an operator override was carried out. Waits for that.
    ///
    /// # Errors
    /// [`Error::Answers`], [`Error::Ended`].
    pub(in crate::vm) fn wait_vouched(&self, slow: &mut Slow<'_>) -> Result<(), Error> {
        let mut control = self.lock_control();
        control.answers = false;
        // A counter that is full is readable too.
        let _ = self.vouched.write(1);
        while control.committed() {
            control.ended()?;
            if control.answers {
                return Err(Error::Answers);
            }
            control = self.wait_slowly(control, slow, "the other host, which is asked once more");
        }
        Ok(())
    }

    /// Records that the other host answers: it decides what happens to the VM.
    pub(in crate::vm) fn refuse_vouching(&self) {
        let _ = self.vouched.read();
        self.lock_control().answers = true;
        self.changed.notify_all();
    }

    /// Records that the state is captured for a move: from now on the operator's choice of pause
    /// cannot change until it is decided where the VM continues. Returns whether it will be paused
    /// there.
    pub(in crate::vm) fn leave(&self) -> bool {
        let mut control = self.lock_control();
        control.leaving = Leaving::Open;
        control.held
    }

    /// Permits the VM to continue here, or never again unless the destination permits it.
    pub(in crate::vm) fn fenced(&self, fenced: bool) {
        self.lock_control().leaving = if fenced { Leaving::Committed } else { Leaving::No };
        self.changed.notify_all();
    }

    /// Waits while another thread holds the VM in a way that leaves open where it continues.
    /// Returns whether it is still held, by an operation that leaves it here.
    ///
    /// # Errors
    /// [`Error::Ended`]; [`Error::HandedOver`]: it continues elsewhere.
    pub(in crate::vm) fn wait_decided(&self, slow: &mut Slow<'_>) -> Result<bool, Error> {
        let mut control = self.lock_control();
        loop {
            control.ended()?;
            match control.leaving {
                Leaving::Committed => return Err(control.handed_over()),
                Leaving::No => return Ok(control.guarded),
                Leaving::Open => {
                    control =
                        self.wait_slowly(control, slow, "the move to decide where it goes on");
                }
            }
        }
    }
}
