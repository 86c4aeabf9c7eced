//! Stops the vCPU, for an operation or for good.

use super::{Error, InvariantState, Paused, Vm, VmPhase};
use crate::host::urgent::{Side, Urgent};
use std::{
    sync::atomic::Ordering::SeqCst,
    time::{Duration, Instant},
};
use vcpu_control::{OtherHolder, Waited};

impl Vm {
    /// Stops the vCPU as soon as possible, wherever the guest is: at once if it waits, else within
    /// tens of microseconds. Waits while another thread holds the VM paused.
    ///
    /// # Errors
    /// [`Error::Ended`].
    pub fn pause(&self) -> Result<Paused<'_>, Error> {
        self.stop_vcpu(None, OtherHolder::Wait)
    }

    /// Asks the guest to quiesce, and stops the vCPU when it has answered or `timeout` is over,
    /// whichever comes first; [`Paused::quiescent`] tells which. A paused VM is not asked.
    ///
    /// # Errors
    /// [`Error::Ended`].
    pub fn quiesce(&self, timeout: Duration) -> Result<Paused<'_>, Error> {
        self.stop_vcpu(Some(timeout), OtherHolder::Wait)
    }

    pub(super) fn stop_vcpu(
        &self,
        quiesce: Option<Duration>,
        other: OtherHolder,
    ) -> Result<Paused<'_>, Error> {
        let requested = Instant::now();
        let vcpus = &self.shared.vcpus;
        let control = &vcpus.control;
        let asked = quiesce.filter(|_| control.phase().is_running());
        let Some(timeout) = asked else {
            if let Some(held) = control.take_waiting() {
                return Ok(Paused::new(self, held, requested));
            }
            let _want = control.want_pause();
            let held = control.wait_stopped(None, other).map_err(Error::Ended)?.held();
            return Ok(Paused::new(self, held.ok_or_else(|| self.shared.busy())?, requested));
        };
        let want = control.want_quiesce();
        vcpus.request_quiesce(timeout);
        control.nudge();
        fail_point!("vm.quiescing");
        let mut waited =
            control.wait_stopped(Some(requested + timeout), other).map_err(Error::Ended)?;
        if let Waited::Running = waited {
            let _want = control.want_pause();
            waited = control.wait_stopped(None, other).map_err(Error::Ended)?;
        }
        drop(want);
        let held = waited.held().ok_or_else(|| self.shared.busy())?;
        let paused = Paused::new(self, held, requested);
        let (requested, stopped) = paused.times();
        let took = stopped.saturating_duration_since(requested);
        self.shared.record.history().quiesced(took, paused.quiescent());
        Ok(paused)
    }

    /// Stops the guest for a move: if the program has quiesce hooks as [`quiesce`](Self::quiesce)
    /// does, else at once, wherever it is.
    ///
    /// # Errors
    /// [`Error::Ended`], or [`Error::Busy`] if another thread holds it.
    pub fn stop_for_move(&self, timeout: Duration) -> Result<Paused<'_>, Error> {
        fail_point!("vm.stopping");
        if let VmPhase::Paused = self.phase() {
            return self.pause();
        }
        if self.ram().control_page().no_quiesce_hooks.load(SeqCst) == 0 {
            return self.quiesce(timeout);
        }
        let paused = self.pause()?;
        let (requested, stopped) = paused.times();
        let took = stopped.saturating_duration_since(requested);
        self.shared.record.history().quiesced(took, true);
        Ok(paused)
    }

    /// Stops the guest at an exit: where it waits, or else where it reports that it is ready. One
    /// that gets to neither within `timeout` is stopped where it is.
    ///
    /// # Errors
    /// [`Error::Ended`], or [`Error::Busy`] if another thread holds it.
    pub fn stop_at_exit(&self, timeout: Duration) -> Result<Paused<'_>, Error> {
        let requested = Instant::now();
        match self.shared.vcpus.control.take_waiting() {
            Some(held) => Ok(Paused::new(self, held, requested)),
            None => self.quiesce(timeout),
        }
    }

    /// Announces that the VM is about to be stopped for a capture, or is not after all: the vCPU
    /// thread then prepares the capture whenever the guest waits.
    pub fn stop_is_near(&self, near: bool) {
        self.shared.vcpus.control.set_stop_near(near);
    }

    /// The guest's invariant state, as of the last time that it [returned
    /// memory](Self::request_reclaim).
    #[must_use]
    pub fn invariant(&self) -> Option<InvariantState> {
        self.shared.vcpus.requests.invariant()
    }

    /// Takes hold of a VM that is paused already, such as one just prepared.
    ///
    /// # Errors
    /// [`Error::Ended`], or [`Error::Busy`] if it runs or another thread holds it.
    pub fn hold(&self) -> Result<Paused<'_>, Error> {
        let requested = Instant::now();
        let held =
            self.shared.vcpus.control.take_hold().map_err(|not| self.shared.not_held(not))?;
        Ok(Paused::new(self, held, requested))
    }

    /// Gives the vCPU threads [real-time priority](Urgent). Not for long while a guest runs that
    /// does not wait: no other thread would get this CPU.
    #[must_use]
    pub fn urgent_vcpus(&self, side: Side) -> Vec<Urgent> {
        let threads = self.shared.vcpus.threads.iter();
        threads.map(|thread| Urgent::other(thread.id.load(SeqCst), side)).collect()
    }

    /// Announces that the paused VM is about to be resumed, so that its thread is awake by then: a
    /// wake-up takes longer than most of the work between the two.
    pub fn prewake(&self) {
        self.shared.vcpus.control.prewake();
    }

    /// When the vCPU last entered the guest after a resume, taken right before `KVM_RUN`. Waits for
    /// it at most `timeout`.
    #[must_use]
    pub fn entered(&self, timeout: Duration) -> Option<Instant> {
        self.shared.vcpus.wait_entered(timeout)
    }
}
