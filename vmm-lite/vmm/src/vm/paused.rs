//! Holding a VM that does not run.

use super::{
    Address, End, Error, ForwardedPackets, InvariantState, ResumeReason, Vm, VmState,
    machine::{Fresh, Machine},
    steering::Phase,
};
use crate::{
    devices::{
        net::{Net, link},
        throttle::Rates,
    },
    kvm::touch::{RUNS, Run},
    memory::PageSet,
};
use kvm_bindings::kvm_sregs;
use std::{
    sync::MutexGuard,
    time::{Duration, Instant},
};
use vmm_lite_interface::layout::{CONTROL_PAGE, PAGE_SIZE};

/// The timeout for a TAP to carry packets; the kernel needs up to a second.
pub(super) const LINK_TIMEOUT: Duration = Duration::from_secs(3);

/// A VM that is paused while this is held, and after it is dropped until it is resumed.
#[derive(Debug)]
pub struct Paused<'vm> {
    vm: &'vm Vm,
    machine: MutexGuard<'vm, Machine>,
    requested: Instant,
    /// The VM was resumed through this guard.
    runs: bool,
}

/// How a VM is resumed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Resume {
    /// Why it runs, as reported to the guest.
    pub reason: ResumeReason,
    /// How much the guest's clock advanced while it did not run, as reported to the guest. (The
    /// clock itself is advanced by [`Paused::apply`].)
    pub away: Duration,
}

impl Drop for Paused<'_> {
    fn drop(&mut self) {
        if !self.runs {
            self.vm.shared.let_go();
        }
    }
}

impl<'vm> Paused<'vm> {
    pub(super) fn new(vm: &'vm Vm, machine: MutexGuard<'vm, Machine>, requested: Instant) -> Self {
        Self { vm, machine, requested, runs: false }
    }

    /// The VM.
    #[must_use]
    pub fn vm(&self) -> &'vm Vm {
        self.vm
    }

    /// Whether the guest itself reported that it is ready for this.
    #[must_use]
    pub fn quiescent(&self) -> bool {
        matches!(self.vm.shared.phase(), Phase::Paused { quiescent: true, .. })
    }

    /// When the pause was requested (rule R7), and when the vCPU stopped.
    #[must_use]
    pub fn times(&self) -> (Instant, Instant) {
        match self.vm.shared.phase() {
            // A VM that was paused before was stopped at once.
            Phase::Paused { since, .. } => (self.requested, since.max(self.requested)),
            _ => (self.requested, self.requested),
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
        self.machine.bus.pages_in_use()
    }

    /// Everything but the memory. May be called repeatedly; the VM stays unchanged.
    ///
    /// # Errors
    /// [`Error::Kvm`].
    pub fn capture(&mut self) -> Result<VmState, Error> {
        Ok(self.machine.capture(&self.vm.shared)?)
    }

    /// Applies the invariant state, before the rest of the state has arrived.
    ///
    /// # Errors
    /// [`Error::Kvm`]; the state itself may still be applied.
    pub fn apply_invariant(&mut self, invariant: &InvariantState) -> Result<(), Error> {
        Ok(self.machine.apply_invariant(invariant)?)
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
        Ok(self.machine.vcpu.touch(system, routine, runs)?)
    }

    /// Applies a captured state, `away` after its capture. The memory has been written before.
    ///
    /// # Errors
    /// [`Error::Apply`]. The VM must be dropped then.
    pub fn apply(&mut self, state: &VmState, away: Duration) -> Result<(), Error> {
        Ok(self.machine.apply(state, away, &self.vm.shared)?)
    }

    /// Runs through the paths that are slow the first time, so that the guest does not wait for
    /// them: entering and leaving the vCPU, and the TAP. For a VM just [prepared](Vm::prepare).
    /// Returns how long it took to apply a vCPU's state.
    ///
    /// # Errors
    /// The host's error.
    pub fn warm_up(&mut self) -> Result<Duration, Error> {
        let state = self.machine.vcpu.capture()?;
        let began = Instant::now();
        self.machine.vcpu.apply(&state)?;
        let apply = began.elapsed();
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
        self.machine.bus.of_kind_mut().for_each(|net: &mut Net| net.restrict_to(None));
    }

    /// Limits its devices and its console to these rates from now on.
    pub fn limit(&mut self, rates: &Rates) {
        self.machine.bus.devices_mut().for_each(|device| device.limit(rates));
        self.machine.rings.limit(rates.console);
        *self.vm.shared.lock_rates() = *rates;
    }

    /// Gives the guest these network addresses from now on.
    pub fn readdress(&self, address: &Address) {
        let ram = self.vm.ram();
        address.publish(&ram.control_page().address);
        ram.mark(CONTROL_PAGE, PAGE_SIZE as usize);
    }

    /// How long it has been stopped.
    fn stopped_for(&self) -> Duration {
        match self.vm.shared.phase() {
            Phase::Paused { since, .. } => since.elapsed(),
            _ => Duration::ZERO,
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
        *self.vm.shared.lock_fenced() = fenced;
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

    /// Lets the VM run, unless the operator wants it paused: then it stays so, and the guest gets
    /// the reason when it runs.
    ///
    /// # Errors
    /// [`Error::Ended`] if it was stopped meanwhile, [`Error::HandedOver`]; or the host's error if
    /// it provides no random numbers.
    pub fn resume(mut self, how: Resume) -> Result<(), Error> {
        self.vm.shared.may_end()?;
        use ResumeReason::{Boot, Forked, Migrated, Restored, Resumed, Reverted};
        let reason = match (how.reason, self.machine.untold.take()) {
            (Resumed, Some(untold)) => untold,
            (Resumed, None) if self.vm.shared.stays_paused() => return Ok(()),
            (reason, _) => reason,
        };
        let new_generation = matches!(reason, Boot | Restored | Forked | Reverted);
        // The operation that paused it may have copied its memory: a snapshot, a template of
        // clones, a failed move. A successful move leaves no other copy.
        let may_be_copied = reason != Migrated;
        let fresh = may_be_copied.then(|| Fresh::draw(new_generation)).transpose()?;
        self.machine.before_resume(reason, how.away, fresh.as_ref());
        self.runs = self.vm.shared.run()?;
        if !self.runs {
            self.machine.untold = Some(reason).filter(|reason| *reason != Resumed);
        }
        Ok(())
    }

    /// Resumes a VM that was paused here and did not leave, unless the operator wants it paused.
    ///
    /// # Errors
    /// [`Error::Ended`].
    pub fn resume_here(self) -> Result<(), Error> {
        let away = self.stopped_for();
        self.resume(Resume { reason: ResumeReason::Resumed, away })
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
        self.vm.shared.end_paused(End::Moved)
    }
}
