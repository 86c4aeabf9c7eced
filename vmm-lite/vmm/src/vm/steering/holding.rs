//! Taking hold of the VM, which guarantees that the guest does not run.

use super::{Phase, awake_until};
use crate::vm::{Error, machine::Machine, shared::Shared};
use std::{
    sync::{MutexGuard, atomic::Ordering::SeqCst},
    time::{Duration, Instant},
};

/// The result of waiting for the vCPU to stop.
pub(in crate::vm) enum Waited<'s> {
    /// It is stopped, and this thread holds the VM.
    Machine(MutexGuard<'s, Machine>),
    /// It is stopped, and another thread holds the VM.
    Guarded,
    /// It still runs, and the deadline is over.
    Runs,
}

impl<'s> Waited<'s> {
    /// The VM, if this thread holds it.
    pub fn machine(self) -> Option<MutexGuard<'s, Machine>> {
        match self {
            Self::Machine(machine) => Some(machine),
            Self::Guarded | Self::Runs => None,
        }
    }
}

/// What to do where another thread holds the VM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::vm) enum OtherGuard {
    /// Wait until it is released. For an operation: there is one at a time, and other holders hold
    /// it only for a moment.
    Wait,
    /// Return an error.
    Report,
}

impl Shared {
    /// Takes hold of a VM whose guest waits, or has not run yet. `None`: it does something else.
    pub(in crate::vm) fn take_waiting(&self) -> Option<MutexGuard<'_, Machine>> {
        // The vCPU thread holds it while it runs the guest or works on its behalf.
        let machine = self.try_lock_machine()?;
        let mut control = self.lock_control();
        if !matches!(control.phase, Phase::Running) {
            return None;
        }
        control.phase = Phase::Paused { quiescent: false, since: Instant::now() };
        control.guarded = true;
        self.running.store(false, SeqCst);
        self.changed.notify_all();
        Some(machine)
    }

    /// Waits until the vCPU is stopped, or `deadline`, and takes hold of the VM unless another
    /// thread has.
    pub(in crate::vm) fn wait_stopped(
        &self,
        deadline: Option<Instant>,
        other: OtherGuard,
    ) -> Result<Waited<'_>, Error> {
        awake_until(|| !self.running.load(SeqCst));
        let mut control = self.lock_control();
        loop {
            control.ended()?;
            match control.phase {
                Phase::Paused { .. } if control.guarded && other == OtherGuard::Report => {
                    return Ok(Waited::Guarded);
                }
                Phase::Paused { .. } if control.guarded => {}
                Phase::Paused { .. } => {
                    drop(control);
                    if let Some(machine) = self.take_paused() {
                        return Ok(Waited::Machine(machine));
                    }
                    control = self.lock_control();
                    continue;
                }
                _ => {}
            }
            let left = match deadline.map(|at| at.saturating_duration_since(Instant::now())) {
                Some(Duration::ZERO) => return Ok(Waited::Runs),
                left => left,
            };
            control = self.wait_changed(control, left);
        }
    }

    /// Takes hold of a VM that is paused and that no other thread holds.
    fn take_paused(&self) -> Option<MutexGuard<'_, Machine>> {
        loop {
            let mut control = self.lock_control();
            if control.guarded || !matches!(control.phase, Phase::Paused { .. }) {
                return None;
            }
            // Against the lock order, so this never waits for the lock.
            if let Some(machine) = self.try_lock_machine() {
                control.guarded = true;
                return Some(machine);
            }
            // The vCPU thread holds it for a moment, to check whether it has to run.
            drop(control);
            std::thread::yield_now();
        }
    }

    /// Takes hold of a VM that is paused already.
    pub(in crate::vm) fn take_hold(&self) -> Result<MutexGuard<'_, Machine>, Error> {
        loop {
            {
                let control = self.lock_control();
                control.ended()?;
                if control.guarded || matches!(control.phase, Phase::Running) {
                    return Err(control.busy());
                }
            }
            if let Some(machine) = self.take_paused() {
                return Ok(machine);
            }
        }
    }

    /// The guard of a held VM is dropped.
    pub(in crate::vm) fn let_go(&self) {
        self.lock_control().guarded = false;
        self.changed.notify_all();
    }

    /// The vCPU thread takes the VM to run it; `None` if it is not to run.
    pub(in crate::vm) fn lock_running(&self) -> Option<MutexGuard<'_, Machine>> {
        let machine = self.lock_machine();
        // Only its holder makes it run, or takes it while it waits.
        matches!(self.lock_control().phase, Phase::Running).then_some(machine)
    }
}
