//! A VM whose guest's inputs are recorded, or come from a log.

use super::{Error, Paused, Vm, VmState};
use crate::{
    devices::{
        clock,
        gate::{Gate, Gated},
        inputs::Traffic,
        net::Net,
    },
    vcpu::{Log, Phase, Position, RecordOptions, Replayed, Source},
};
use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

impl Paused<'_> {
    /// Records the VM's inputs into `log` from now on: with the VM as it is now and the log, it can
    /// be [replayed](Self::replay). Records begin after position `after`.
    ///
    /// # Errors
    /// [`Error::NotRecordable`], [`Error::OwnClock`] for an image that takes values which no log
    /// has; [`Error::Kvm`].
    pub fn record(
        &mut self,
        log: Box<dyn Log>,
        after: u64,
        options: RecordOptions,
    ) -> Result<(), Error> {
        self.check_recordable(options.allow_own_clock)?;
        let ram = self.vm().ram().clone();
        let (devices, runner) = self.first();
        runner.begin_recording(&ram, log, after, options)?;
        devices.record(true);
        ram.samples().record();
        self.vm().shared.vcpus.requests.set_recorded(true, &ram);
        Ok(())
    }

    /// Has the VM replay a log, from where it stands, when it is resumed: it stands after the
    /// record at `at`. It pauses where [`Vm::wait_replayed`] says how that ended. `traffic` sees
    /// its packets; nothing is sent.
    ///
    /// # Errors
    /// [`Error::NotRecordable`], [`Error::Kvm`].
    pub fn replay(
        &mut self,
        source: Box<dyn Source>,
        at: Position,
        traffic: Option<Box<dyn Traffic>>,
    ) -> Result<(), Error> {
        let ram = self.vm().ram().clone();
        let (devices, runner) = self.first();
        runner.begin_replaying(&ram, source, at, traffic)?;
        devices.record(true);
        self.vm().shared.vcpus.forget_replayed();
        Ok(())
    }

    /// The VM goes on by itself: its inputs come from the world again, and are not kept. One that
    /// has replayed a log continues with the clock that the log has, `away` later.
    ///
    /// # Errors
    /// [`Error::Kvm`].
    pub fn go_live(&mut self, away: Duration) -> Result<(), Error> {
        let vm = self.vm();
        let ram = vm.ram().clone();
        let (devices, runner) = self.first();
        if let Some(tsc) = runner.end_tape(&ram)? {
            devices.clock.follow(&ram.control_page().clock, tsc, away);
        }
        devices.record(false);
        ram.samples().turn_off();
        vm.shared.vcpus.requests.set_recorded(false, &ram);
        Ok(())
    }

    /// Holds the VM's output back at `gate` from now on.
    ///
    /// # Errors
    /// The TAP device's error.
    pub fn hold_output(&mut self, gate: &Arc<Gate>) -> Result<(), Error> {
        let shared = Arc::clone(&self.vm().shared);
        let vcpus = Arc::downgrade(&shared.vcpus);
        gate.nudges(move || {
            if let Some(vcpus) = vcpus.upgrade() {
                vcpus.control.nudge();
            }
        });
        let (devices, _) = self.first();
        for (net, port) in devices.bus.of_kind_mut::<Net>().zip(&shared.nets) {
            net.replace_backend(Gated::new(port.tap.try_clone()?, Arc::clone(gate)));
        }
        devices.rings.wait_at(Some(Arc::clone(gate)));
        shared.set_gate(Some(Arc::clone(gate)));
        Ok(())
    }

    /// The VM's output leaves at once from now on. What waits at the gate is to have left.
    ///
    /// # Errors
    /// The TAP device's error.
    pub fn release_output(&mut self) -> Result<(), Error> {
        let shared = Arc::clone(&self.vm().shared);
        let (devices, _) = self.first();
        for (net, port) in devices.bus.of_kind_mut::<Net>().zip(&shared.nets) {
            net.replace_backend(port.tap.try_clone()?);
        }
        devices.rings.wait_at(None);
        shared.set_gate(None);
        Ok(())
    }

    /// Where in the log the VM stands that is recorded or replayed; the log has everything up to
    /// there.
    ///
    /// # Errors
    /// [`Error::Host`] when the log cannot be kept. `None`: it is neither.
    pub fn position(&mut self) -> Result<Option<Position>, Error> {
        let ram = self.vm().ram().clone();
        let (devices, runner) = self.first();
        runner.position(devices, &ram).map_err(|source| Error::Host { doing: "log inputs", source })
    }

    /// Checks that the log of a guest would have every value that it takes.
    fn check_recordable(&self, allow_own_clock: bool) -> Result<(), Error> {
        let own_clock = &self.vm().shared.identity.own_clock;
        match own_clock.count {
            // Images from before that was looked for have no ring of samples either.
            None => Err(Error::NotRecordable),
            Some(1..) if !allow_own_clock => Err(Error::OwnClock(own_clock.clone())),
            Some(_) => Ok(()),
        }
    }

    /// A state in which the guest does not stand within a routine that takes samples.
    pub(super) fn outside_of_routines(&self, state: &mut VmState) {
        for vcpu in &mut state.vcpus {
            crate::vcpu::leave_routine(self.vm().ram(), &mut vcpu.regs);
        }
    }
}

impl Vm {
    /// Waits until the replay of its log has ended, at most `within`: then `None`. `Some(None)`:
    /// the VM has ended.
    #[must_use]
    pub fn wait_replayed(&self, within: Option<Duration>) -> Option<Option<Replayed>> {
        let vcpus = &self.shared.vcpus;
        let deadline = within.map(|within| Instant::now() + within);
        vcpus.control.wait_until(deadline, |phase, _| match phase {
            Phase::Ended(_) => Some(None),
            Phase::Paused { .. } => vcpus.replayed().map(Some),
            Phase::Running => None,
        })
    }

    /// Whether its inputs are recorded.
    #[must_use]
    pub fn is_recorded(&self) -> bool {
        self.shared.vcpus.requests.is_recorded()
    }

    /// Position of the last record that it has replayed.
    #[must_use]
    pub fn replay_position(&self) -> u64 {
        self.shared.vcpus.replay_position.load(Relaxed)
    }

    /// What the guest's wall clock was when its replay ended, ns since 1970.
    #[must_use]
    pub fn replayed_wall_ns(&self) -> u64 {
        let clock = clock::as_published(&self.ram().control_page().clock);
        let tsc = self.shared.vcpus.replayed().and_then(|replayed| replayed.tsc);
        clock::wall_ns(&clock, tsc.unwrap_or(clock.tsc_base))
    }
}
