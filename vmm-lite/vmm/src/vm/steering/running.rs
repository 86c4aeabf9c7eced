//! Running the vCPU: both sides of a resume, and of a stop.

use super::{Phase, awake_until};
use crate::vm::{Error, machine::Machine, shared::Shared};
use std::{
    sync::{
        MutexGuard,
        atomic::Ordering::{Relaxed, SeqCst},
    },
    time::{Duration, Instant},
};

impl Shared {
    /// Lets the vCPU thread run, unless the operator wants the VM paused: then `false`. The caller
    /// holds the VM and releases it right after.
    pub(in crate::vm) fn run(&self) -> Result<bool, Error> {
        let mut control = self.lock_control();
        // It is about to end, and must not run before that; how it ends is known in a moment.
        while self.stopping.load(SeqCst) && matches!(control.phase, Phase::Paused { .. }) {
            control = self.wait_changed(control, None);
        }
        control.ended()?;
        if matches!(control.phase, Phase::Running) {
            return Err(control.busy());
        }
        self.entered.store(0, SeqCst);
        if control.held || control.kept {
            return Ok(false);
        }
        control.guarded = false;
        self.resumes.fetch_add(1, Relaxed);
        control.phase = Phase::Running;
        self.running.store(true, SeqCst);
        // It is awake, or will be; not again when it stops.
        self.prewoken.store(false, SeqCst);
        drop(control);
        self.changed.notify_all();
        // The thread of a VM that was taken while its guest waited may still wait for the same.
        self.nudge();
        Ok(true)
    }

    /// Parks the vCPU thread until it has to run (`true`) or the VM has ended (`false`).
    pub(in crate::vm) fn park(&self) -> bool {
        let mut control = self.lock_control();
        loop {
            match &control.phase {
                Phase::Running => return true,
                Phase::Ended(_) => return false,
                Phase::Paused { .. } => {}
            }
            if self.prewoken.swap(false, SeqCst) {
                drop(control);
                // A VM that is dropped instead must be gone at once, with its TAP.
                awake_until(|| self.running.load(SeqCst) || self.stopping.load(SeqCst));
                control = self.lock_control();
                continue;
            }
            control = self.wait_changed(control, None);
        }
    }

    /// Announces that [`run`](Self::run) is about to be called.
    pub(in crate::vm) fn prewake(&self) {
        // Taking the lock ensures that the thread either sleeps or has yet to check.
        let control = self.lock_control();
        self.prewoken.store(true, SeqCst);
        drop(control);
        self.changed.notify_all();
    }

    /// Reports that the vCPU is stopped, and releases the VM: in one step, so that no thread
    /// mistakes a free VM for one that waits.
    pub(in crate::vm) fn stopped(&self, machine: MutexGuard<'_, Machine>, phase: Phase) {
        let ended = matches!(phase, Phase::Ended(_));
        {
            let mut control = self.lock_control();
            control.phase = match (&phase, control.failure.take()) {
                (Phase::Ended(_), Some(why)) => Phase::Ended(why),
                _ => phase,
            };
            drop(machine);
        }
        self.running.store(false, SeqCst);
        if ended {
            self.tell_end();
        } else {
            self.changed.notify_all();
        }
    }

    /// Notes the first entry after a resume. A thread that waits for it is woken right here, which
    /// costs the guest a microsecond or two; a later one finds the note.
    pub(in crate::vm) fn note_entry(&self) {
        let ns = self.made.elapsed().as_nanos() as u64;
        self.entered.store(ns + 1, SeqCst);
        if self.entry_awaited.swap(false, SeqCst) {
            // Taking the lock once ensures that the waiting thread either sleeps or has yet to
            // check.
            drop(self.lock_control());
            self.changed.notify_all();
        }
    }

    pub(in crate::vm) fn wait_entered(&self, timeout: Duration) -> Option<Instant> {
        let deadline = Instant::now() + timeout;
        awake_until(|| self.entered.load(SeqCst) != 0);
        let mut control = self.lock_control();
        loop {
            self.entry_awaited.store(true, SeqCst);
            match self.entered.load(SeqCst) {
                0 => {}
                n => return Some(self.made + Duration::from_nanos(n - 1)),
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || !matches!(control.phase, Phase::Running) {
                return None;
            }
            control = self.wait_changed(control, Some(left));
        }
    }
}
