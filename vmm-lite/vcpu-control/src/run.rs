//! Running the vCPUs: both sides of a resume, and of a stop.

use crate::{
    Control, NotHeld, Phase, Platform,
    sync::{SeqCst, TryMutexGuard},
};

/// Why a vCPU has stopped.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Stopped<E> {
    /// On request.
    Paused {
        /// The guest itself reported that it is quiescent.
        quiescent: bool,
    },
    /// The VM ends with it.
    Ended(E),
}

impl<P: Platform> Control<P> {
    /// Lets the vCPU threads run, unless the VM is to stay paused, which `stays_paused` decides
    /// under the lock: then `false`. The caller holds the VM and drops its locks right after.
    ///
    /// # Errors
    /// [`NotHeld`]; [`Busy`](NotHeld::Busy) only if it runs.
    pub fn run(&self, stays_paused: impl FnOnce() -> bool) -> Result<bool, NotHeld<P::End>> {
        let mut state = self.lock();
        // It is about to end, and must not run before that; how it ends is known in a moment.
        while self.end_wanted() && state.phase.is_paused() {
            state = self.wait_changed(state, None);
        }
        state.ended().map_err(NotHeld::Ended)?;
        if state.phase.is_running() {
            return Err(NotHeld::Busy);
        }
        if stays_paused() {
            return Ok(false);
        }
        state.held = false;
        state.phase = Phase::Running;
        state.running = u64::MAX >> (64 - self.members.len());
        self.wants.barrier.store(false, SeqCst);
        self.runs.store(true, SeqCst);
        // They are awake, or will be; not again when they stop.
        self.prewoken.store(false, SeqCst);
        drop(state);
        self.changed.notify_all();
        // A thread whose vCPU was stopped while its guest waited may still wait for the same.
        self.nudge();
        Ok(true)
    }

    /// Parks a vCPU thread until its vCPU has to run (`true`) or the VM has ended (`false`).
    pub fn park(&self, member: usize) -> bool {
        let mut state = self.lock();
        loop {
            if state.runs(member) {
                return true;
            }
            if state.phase.is_ended() {
                return false;
            }
            if self.prewoken.swap(false, SeqCst) {
                drop(state);
                // A VM that is dropped instead must be gone at once, with its TAP.
                P::poll_for_a_moment(|| self.runs.load(SeqCst) || self.end_wanted());
                state = self.lock();
                continue;
            }
            state = self.wait_changed(state, None);
        }
    }

    /// Announces that [`run`](Self::run) is about to be called, so that the threads are awake by
    /// then.
    pub fn prewake(&self) {
        self.prewoken.store(true, SeqCst);
        self.changed();
    }

    /// Reports that a vCPU has stopped, and drops its lock: in one step, so that no thread mistakes
    /// a stopped vCPU for one that waits. The VM is paused, or has ended, when the last one has.
    pub fn stopped(
        &self,
        member: usize,
        machine: TryMutexGuard<'_, P::Machine>,
        why: Stopped<P::End>,
    ) {
        let mut state = self.lock();
        state.running &= !(1 << member);
        match why {
            Stopped::Paused { quiescent } => state.quiescent |= quiescent,
            Stopped::Ended(end) => drop(state.end.get_or_insert(end)),
        }
        if state.running != 0 {
            drop(machine);
            drop(state);
            // The others stop too.
            self.wants.barrier.store(true, SeqCst);
            self.stir();
            return;
        }
        let ended = state.all_stopped();
        drop(machine);
        drop(state);
        self.runs.store(false, SeqCst);
        if ended {
            self.tell_end();
        } else {
            self.changed.notify_all();
        }
    }
}
