//! The end of a VM.

use crate::{Control, NotHeld, Phase, Platform, sync::SeqCst};
use std::time::Instant;

impl<P: Platform> Control<P> {
    /// Ends the VM, whatever it does. Waits for that.
    pub fn end(&self, end: P::End) {
        self.end_soon();
        let mut state = self.lock();
        while state.phase.is_running() {
            state = self.wait_changed(state, None);
        }
        if state.phase.is_ended() {
            return;
        }
        state.phase = Phase::Ended(end);
        drop(state);
        self.tell_end();
    }

    /// The vCPUs have to stop, and do not run again.
    fn end_soon(&self) {
        self.wants.ending.store(true, SeqCst);
        self.stir();
    }

    /// Ends the VM because the host failed. What the guest does or waits for then does not affect
    /// how it ended. `let_go` ends whatever may block a vCPU thread; it is called when the vCPUs
    /// have stopped, or at `deadline`.
    pub fn fail(&self, why: P::End, deadline: Instant, let_go: impl FnOnce()) {
        {
            let mut state = self.lock();
            if !state.phase.is_ended() {
                state.failure = Some(why.clone());
            }
        }
        self.end_soon();
        self.wait_until(Some(deadline), |phase, _| (!phase.is_running()).then_some(()));
        let_go();
        let mut state = self.lock();
        while state.phase.is_running() {
            state = self.wait_changed(state, None);
        }
        if state.phase.is_paused() {
            state.phase = Phase::Ended(why);
            drop(state);
            self.tell_end();
        }
    }

    /// Makes a paused VM an ended one.
    ///
    /// # Errors
    /// [`NotHeld`]; [`Busy`](NotHeld::Busy) only if it runs.
    pub fn end_paused(&self, end: P::End) -> Result<(), NotHeld<P::End>> {
        let mut state = self.lock();
        state.ended().map_err(NotHeld::Ended)?;
        if state.phase.is_running() {
            return Err(NotHeld::Busy);
        }
        state.phase = Phase::Ended(end);
        drop(state);
        self.tell_end();
        Ok(())
    }

    /// Notifies all waiting threads that the phase is `Ended`.
    pub(crate) fn tell_end(&self) {
        self.platform.ended();
        self.nudge();
        self.changed.notify_all();
    }
}
