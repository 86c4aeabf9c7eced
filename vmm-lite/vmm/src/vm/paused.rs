//! Holding a VM that does not run.

use super::{Address, ApplyError, End, Error, ForwardedPackets, InvariantState, Vm, VmState};
use crate::{
    devices::{
        Devices,
        net::{Net, link},
        throttle::Rates,
    },
    kvm::touch::{RUNS, Run},
    memory::{PageSet, Writable},
    vcpu::{Phase, Runner},
};
use kvm_bindings::kvm_sregs;
use std::{
    sync::{Arc, MutexGuard},
    time::{Duration, Instant},
};
use vcpu_control::Held;
use vmm_lite_interface::{
    doorbell::Doorbell,
    layout::{CONTROL_PAGE, PAGE_SIZE},
};

/// The timeout for a TAP to carry packets; the kernel needs up to a second.
pub(super) const LINK_TIMEOUT: Duration = Duration::from_secs(3);

/// A VM that is paused while this is held, and after it is dropped until it is resumed.
#[derive(Debug)]
pub struct Paused<'vm> {
    vm: &'vm Vm,
    devices: MutexGuard<'vm, Devices>,
    vcpus: Held<'vm, Runner>,
    requested: Instant,
    /// The VM was resumed through this guard.
    pub(super) runs: bool,
}

impl Drop for Paused<'_> {
    fn drop(&mut self) {
        if !self.runs {
            self.vm.shared.vcpus.control.release();
        }
    }
}

impl<'vm> Paused<'vm> {
    /// The guard of a VM whose vCPUs are held, which were requested to stop at `requested`.
    pub(super) fn new(vm: &'vm Vm, vcpus: Held<'vm, Runner>, requested: Instant) -> Self {
        Self { vm, devices: vm.shared.vcpus.lock_devices(), vcpus, requested, runs: false }
    }

    /// The devices and the vCPUs.
    pub(super) fn parts(&mut self) -> (&mut Devices, impl Iterator<Item = &mut Runner>) {
        (&mut self.devices, self.vcpus.iter_mut().map(|vcpu| &mut **vcpu))
    }

    /// The vCPU that runs first, and the only one so far.
    pub(super) fn first(&mut self) -> (&mut Devices, &mut Runner) {
        (&mut self.devices, &mut self.vcpus[0])
    }

    /// The VM.
    #[must_use]
    pub fn vm(&self) -> &'vm Vm {
        self.vm
    }

    /// The right to write to its memory.
    #[must_use]
    pub fn memory(&self) -> Writable<'_> {
        self.vm.shared.vcpus.ram.writable_while_stopped()
    }

    /// Whether the guest itself reported that it is ready for this.
    #[must_use]
    pub fn quiescent(&self) -> bool {
        matches!(self.vm.shared.phase(), Phase::Paused { quiescent: true, .. })
    }

    /// Whether the guest waits for an event, and was not stopped between two instructions.
    #[must_use]
    pub fn guest_waits(&self) -> bool {
        self.vcpus.iter().all(|runner| runner.guest_waits())
    }

    /// When the pause was requested (rule R7), and when the vCPU stopped.
    #[must_use]
    pub fn times(&self) -> (Instant, Instant) {
        match self.vm.shared.phase() {
            // A VM that was paused before was stopped at once.
            Phase::Paused { since, .. } => (self.requested, since.max(self.requested)),
            Phase::Running | Phase::Ended(_) => (self.requested, self.requested),
        }
    }

    /// The pages whose content does not matter while the guest is stopped: those that it hints, and
    /// more of them if it is quiescent.
    #[must_use]
    pub fn page_hints(&self) -> PageSet {
        let ram = self.vm.ram();
        ram.page_hints(ram.control_page())
    }

    /// Those of [`page_hints`](Self::page_hints) that are among `pages`, and possibly others: the
    /// time to read them grows only with `pages`.
    #[must_use]
    pub fn page_hints_near(&self, pages: &PageSet) -> PageSet {
        let ram = self.vm.ram();
        ram.page_hints_near(ram.control_page(), pages)
    }

    /// The pages of the tables of the devices' queues, which both the VMM and the guest read and
    /// write.
    #[must_use]
    pub fn queue_pages(&self) -> Vec<usize> {
        self.devices.bus.pages_in_use()
    }

    /// Everything but the memory. May be called repeatedly; the VM stays unchanged.
    ///
    /// # Errors
    /// [`Error::Kvm`].
    pub fn capture(&mut self) -> Result<VmState, Error> {
        let shared = &self.vm.shared;
        let vcpus = self.vcpus.iter_mut().map(|runner| runner.vcpu.capture());
        let mut state = VmState {
            vcpus: vcpus.collect::<Result<_, _>>()?,
            devices: self.devices.bus.save(),
            console: self.devices.rings.capture(),
            clock: self.devices.clock.capture(),
            unserved: self.vcpus.iter().fold(0, |all, runner| all | runner.unserved.0),
            quiesce_number: shared.vcpus.requests.quiesce_number(),
            history: *shared.record.history(),
        };
        self.outside_of_routines(&mut state);
        Ok(state)
    }

    /// Applies the invariant state, before the rest of the state has arrived.
    ///
    /// # Errors
    /// [`Error::Kvm`]; the state itself may still be applied.
    pub fn apply_invariant(&mut self, invariant: &InvariantState) -> Result<(), Error> {
        let (devices, runner) = self.first();
        Ok(runner.apply_invariant(devices, invariant)?)
    }

    /// Has the guest's pages [touched](crate::kvm::Vcpu::touch). For a VM whose state is applied
    /// after that.
    ///
    /// # Errors
    /// [`Error::Kvm`]. The VM must be dropped then.
    pub fn touch(
        &mut self,
        system: &kvm_sregs,
        routine: u64,
        runs: &[Run; RUNS],
    ) -> Result<(), Error> {
        Ok(self.first().1.vcpu.touch(system, routine, runs)?)
    }

    /// Applies a captured state, `away` after its capture. The memory has been written before.
    ///
    /// # Errors
    /// [`Error::Apply`]. The VM must be dropped then.
    pub fn apply(&mut self, state: &VmState, away: Duration) -> Result<(), Error> {
        Ok(self.try_apply(state, away)?)
    }

    fn try_apply(&mut self, state: &VmState, away: Duration) -> Result<(), ApplyError> {
        if state.unserved & !Doorbell::ALL.0 != 0 {
            return Err(ApplyError::Doorbell(state.unserved));
        }
        if state.vcpus.len() != self.vcpus.len() {
            return Err(ApplyError::Vcpus { state: state.vcpus.len(), vm: self.vcpus.len() });
        }
        let shared = &self.vm.shared;
        self.devices.bus.restore(&state.devices, shared.vcpus.ram.writable_while_stopped())?;
        fail_point!("vm.half-applied", else {
            return Err(crate::devices::device::RestoreError::Devices.into())
        });
        for (runner, state) in self.vcpus.iter_mut().zip(&state.vcpus) {
            runner.vcpu.apply(state)?;
        }
        self.devices.rings.apply(state.console);
        self.devices.clock.apply(state.clock, away);
        self.first().1.unserved = Doorbell(state.unserved);
        shared.vcpus.requests.set_quiesce_number(state.quiesce_number);
        *shared.record.history() = state.history;
        Ok(())
    }

    /// Runs through the paths that are slow the first time, so that the guest does not wait for
    /// them: entering and leaving the vCPU, and the TAP. For a VM just [prepared](Vm::prepare).
    /// Returns how long it took to apply a vCPU's state.
    ///
    /// # Errors
    /// The host's error.
    pub fn warm_up(&mut self) -> Result<Duration, Error> {
        let mut apply = Duration::ZERO;
        for runner in &mut self.vcpus {
            let state = runner.vcpu.capture()?;
            let began = Instant::now();
            runner.vcpu.apply(&state)?;
            apply += began.elapsed();
        }
        for tap in self.vm.shared.nets.iter().map(|net| &net.tap) {
            let running = link::wait_running(tap, LINK_TIMEOUT);
            let failed = |source| Error::Host { doing: "ask about the TAP device", source };
            if !running.map_err(failed)? {
                let name = tap.name();
                tracing::warn!(
                    "TAP device {name} does not come up; packets to the guest are lost until it \
                     does"
                );
            }
        }
        Ok(apply)
    }

    /// Permits the guest to send packets from addresses that are not its own.
    pub fn allow_spoofing(&mut self) {
        self.devices.bus.of_kind_mut().for_each(|net: &mut Net| net.restrict_to(None));
    }

    /// Limits its devices and its console to these rates from now on.
    pub fn limit(&mut self, rates: &Rates) {
        self.devices.bus.devices_mut().for_each(|device| device.limit(rates));
        self.devices.rings.limit(rates.console);
        *self.vm.shared.record.rates() = *rates;
    }

    /// Gives the guest these network addresses from now on.
    pub fn readdress(&self, address: &Address) {
        let ram = self.vm.ram();
        address.publish(&ram.control_page().address);
        ram.mark(CONTROL_PAGE, PAGE_SIZE as usize);
    }

    /// How long it has been stopped.
    pub(super) fn stopped_for(&self) -> Duration {
        match self.vm.shared.phase() {
            Phase::Paused { since, .. } => since.elapsed(),
            Phase::Running | Phase::Ended(_) => Duration::ZERO,
        }
    }

    /// Announces that the state is captured for a move. Until it is [fenced](Self::fence) or
    /// released, an operator's request to pause or to resume it waits. Returns whether the operator
    /// wants it paused, which moves with it.
    #[must_use]
    pub fn leave(&self) -> bool {
        self.vm.shared.leave()
    }

    /// Keeps the VM from running here, whatever is requested, and from being announced, from right
    /// before the commit of a move until the destination has reported that it never ran it there
    /// (rule R2).
    pub fn fence(&self, fenced: bool) {
        // What it has sent must not come from here once it runs elsewhere.
        if let Some(gate) = self.vm.shared.gate().filter(|_| fenced) {
            gate.wait_empty();
        }
        self.vm.shared.fence.set(fenced);
        self.vm.shared.fenced(fenced);
    }

    /// Records that the operator wants it paused: [`resume`](Self::resume) then leaves it so.
    ///
    /// # Errors
    /// [`Error::Ended`].
    pub fn hold_for_operator(&self) -> Result<(), Error> {
        self.vm.shared.hold(true).map(drop)
    }

    /// Keeps it paused beyond the operation that paused it, until the operator resumes it; or
    /// undoes that.
    pub fn keep(&self, kept: bool) {
        self.vm.shared.keep(kept);
    }

    /// Reads the packets that still arrive here, to forward them to the host where the VM runs now
    /// (rule R5).
    ///
    /// # Errors
    /// TAP errors.
    pub fn packets_in_transit(&self) -> Result<ForwardedPackets, Error> {
        let tap = self.vm.shared.nets.first().map(|net| net.tap.try_clone()).transpose()?;
        Ok(ForwardedPackets::new(tap))
    }

    /// Ends this instance, because another one now runs elsewhere (rules R1, R2).
    ///
    /// # Errors
    /// [`Error::Ended`] if it was stopped meanwhile.
    pub fn moved(self) -> Result<(), Error> {
        let shared = &self.vm.shared;
        shared.vcpus.control.end_paused(Arc::new(End::Moved)).map_err(|not| shared.not_held(not))
    }
}
