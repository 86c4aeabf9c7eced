//! Taking hold of the VM, which guarantees that the guest does not run: a barrier over the vCPUs.

use crate::{
    Control, Platform,
    sync::{PoisonError, SeqCst, TryLockError, TryMutexGuard},
};
use std::{fmt, time::Instant};

/// The locks of all vCPUs of a VM: while a thread has them, none runs.
pub type Held<'c, M> = Vec<TryMutexGuard<'c, M>>;

/// The result of waiting for the vCPUs to stop.
pub enum Waited<'c, M> {
    /// They are stopped, and this thread holds the VM.
    Held(Held<'c, M>),
    /// They are stopped, and another thread holds the VM.
    Other,
    /// They still run, and the deadline is over.
    Running,
}

impl<M> fmt::Debug for Waited<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Held(_) => "Held",
            Self::Other => "Other",
            Self::Running => "Running",
        })
    }
}

impl<'c, M> Waited<'c, M> {
    /// The VM, if this thread holds it.
    pub fn held(self) -> Option<Held<'c, M>> {
        match self {
            Self::Held(held) => Some(held),
            Self::Other | Self::Running => None,
        }
    }
}

/// What to do where another thread holds the VM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OtherHolder {
    /// Wait until it is released. For an operation: there is one at a time, and other holders hold
    /// it only for a moment.
    Wait,
    /// Return.
    Report,
}

/// Why a thread could not take hold of a paused VM, resume it or end it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NotHeld<E> {
    /// It has ended.
    Ended(E),
    /// It runs, or another thread holds it.
    Busy,
}

impl<P: Platform> Control<P> {
    fn try_lock(&self, member: usize) -> Option<TryMutexGuard<'_, P::Machine>> {
        match self.members[member].machine.try_lock() {
            Ok(machine) => Some(machine),
            Err(TryLockError::Poisoned(p)) => Some(p.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// The locks of all vCPUs, if no thread has any of them.
    fn try_lock_all(&self) -> Option<Held<'_, P::Machine>> {
        (0..self.members.len()).map(|member| self.try_lock(member)).collect()
    }

    /// Takes hold of a VM whose guest waits, or has not run yet. `None`: it does something else.
    pub fn take_waiting(&self) -> Option<Held<'_, P::Machine>> {
        // A vCPU thread has its lock while it runs the guest or works on its behalf.
        let machines = self.try_lock_all()?;
        let mut state = self.lock();
        if !state.phase.is_running() {
            return None;
        }
        let ended = state.all_stopped();
        self.runs.store(false, SeqCst);
        if ended {
            drop(state);
            self.tell_end();
            return None;
        }
        state.held = true;
        self.changed.notify_all();
        Some(machines)
    }

    /// Waits until the vCPUs are stopped, or `deadline`, and takes hold of the VM unless another
    /// thread has.
    ///
    /// # Errors
    /// How the VM ended.
    pub fn wait_stopped(
        &self,
        deadline: Option<Instant>,
        other: OtherHolder,
    ) -> Result<Waited<'_, P::Machine>, P::End> {
        P::poll_for_a_moment(|| !self.runs.load(SeqCst));
        let mut state = self.lock();
        loop {
            state.ended()?;
            if state.phase.is_paused() {
                if !state.held {
                    drop(state);
                    if let Some(machines) = self.take_paused() {
                        return Ok(Waited::Held(machines));
                    }
                    state = self.lock();
                    continue;
                }
                if other == OtherHolder::Report {
                    return Ok(Waited::Other);
                }
            }
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(Waited::Running);
            }
            state = self.wait_changed(state, left);
        }
    }

    /// Takes hold of a VM that is paused and that no other thread holds.
    fn take_paused(&self) -> Option<Held<'_, P::Machine>> {
        loop {
            let mut state = self.lock();
            if state.held || !state.phase.is_paused() {
                return None;
            }
            // Against the lock order, so this never waits for a lock.
            if let Some(machines) = self.try_lock_all() {
                state.held = true;
                return Some(machines);
            }
            // A vCPU thread has it for a moment, to check whether it has to run.
            drop(state);
            P::yield_now();
        }
    }

    /// Takes hold of a VM that is paused already.
    ///
    /// # Errors
    /// [`NotHeld`].
    pub fn take_hold(&self) -> Result<Held<'_, P::Machine>, NotHeld<P::End>> {
        loop {
            {
                let state = self.lock();
                state.ended().map_err(NotHeld::Ended)?;
                if state.held || state.phase.is_running() {
                    return Err(NotHeld::Busy);
                }
            }
            if let Some(machines) = self.take_paused() {
                return Ok(machines);
            }
        }
    }

    /// Releases a held VM, which stays paused.
    pub fn release(&self) {
        self.lock().held = false;
        self.changed.notify_all();
    }

    /// The lock of a vCPU, for its thread that is about to run it; `None` if it is not to run.
    pub fn lock_running(&self, member: usize) -> Option<TryMutexGuard<'_, P::Machine>> {
        let machine = self.lock_member(member);
        // Only a thread with the lock makes it run, or stops it while it waits.
        self.lock().runs(member).then_some(machine)
    }

    /// The lock of a vCPU.
    pub fn lock_member(&self, member: usize) -> TryMutexGuard<'_, P::Machine> {
        self.members[member].machine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
