//! Holding a machine that does not run.

use super::{
    Address, End, Error, ForwardedPackets, InvariantState, ResumeReason, Vm, VmState,
    machine::{Fresh, Machine},
    steering::Phase,
};
use crate::{
    devices::{link, throttle::Rates},
    kvm::touch::{RUNS, Run},
    memory::PageSet,
};
use kvm_bindings::kvm_sregs;
use std::{
    sync::MutexGuard,
    time::{Duration, Instant},
};
use vmm_lite_interface::layout::{CONTROL_PAGE, PAGE_SIZE};

/// How long a TAP may take to carry packets; the kernel needs up to a second.
pub(super) const LINK_TIMEOUT: Duration = Duration::from_secs(3);

/// A machine that is paused for as long as this is held, and after it is dropped until somebody
/// resumes it.
#[derive(Debug)]
pub struct Paused<'vm> {
    vm: &'vm Vm,
    machine: MutexGuard<'vm, Machine>,
    requested: Instant,
    /// It was let run.
    runs: bool,
}

/// How a machine goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Resume {
    /// Why it runs, as the guest is told.
    pub reason: ResumeReason,
    /// How long the guest's clock went on while it did not run, as the guest is told. (That the
    /// clock does go on is [`Paused::apply`]'s part.)
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

    /// The machine.
    #[must_use]
    pub fn vm(&self) -> &'vm Vm {
        self.vm
    }

    /// Whether the guest itself said that it is ready for this.
    #[must_use]
    pub fn quiescent(&self) -> bool {
        matches!(self.vm.shared.phase(), Phase::Paused { quiescent: true, .. })
    }

    /// When the pause was asked for (rule R7), and when the vCPU stopped.
    #[must_use]
    pub fn times(&self) -> (Instant, Instant) {
        match self.vm.shared.phase() {
            // One that was paused before was stopped at once.
            Phase::Paused { since, .. } => (self.requested, since.max(self.requested)),
            _ => (self.requested, self.requested),
        }
    }

    /// The pages whose content does not matter as the guest stands: what it has given up, and more
    /// of it is quiescent.
    #[must_use]
    pub fn page_hints(&self) -> PageSet {
        let ram = self.vm.ram();
        ram.page_hints(ram.control_page())
    }

    /// Those of [`page_hints`](Self::dont_care) that are among `pages`, and maybe others: read in
    /// no more time than there are pages.
    #[must_use]
    pub fn page_hints_near(&self, pages: &PageSet) -> PageSet {
        let ram = self.vm.ram();
        ram.page_hints_near(ram.control_page(), pages)
    }

    /// The pages of the tables of the network queues, which the VMM reads and writes beside the
    /// guest.
    #[must_use]
    pub fn queue_pages(&self) -> Vec<usize> {
        self.machine.net.iter().flat_map(|net| net.capture().pages().collect::<Vec<_>>()).collect()
    }

    /// Everything but the memory. Can be called again and again; the machine stays as it is.
    ///
    /// # Errors
    /// [`Error::Kvm`].
    pub fn capture(&mut self) -> Result<VmState, Error> {
        Ok(self.machine.capture(&self.vm.shared)?)
    }

    /// Applies what of a state does not change any more, before that is there.
    ///
    /// # Errors
    /// [`Error::Kvm`]; the state itself may yet be applied.
    pub fn apply_invariant(&mut self, invariant: &InvariantState) -> Result<(), Error> {
        Ok(self.machine.apply_invariant(invariant)?)
    }

    /// Has the guest's pages [touched](crate::kvm::Vcpu::touch). For a machine whose state is
    /// applied after that.
    ///
    /// # Errors
    /// [`Error::Kvm`]. The machine is then to be dropped.
    pub fn touch(
        &mut self,
        system: &kvm_sregs,
        routine: u64,
        runs: &[Run; RUNS],
    ) -> Result<(), Error> {
        Ok(self.machine.vcpu.touch(system, routine, runs)?)
    }

    /// Takes a captured state over, `away` after it was captured. The memory has been written
    /// before.
    ///
    /// # Errors
    /// [`Error::Apply`]. The machine is then to be dropped.
    pub fn apply(&mut self, state: &VmState, away: Duration) -> Result<(), Error> {
        Ok(self.machine.apply(state, away, &self.vm.shared)?)
    }

    /// Goes the ways that are slow the first time, so that it is not the guest that waits for it:
    /// into the vCPU and out of it, and through the TAP. For a machine just
    /// [prepared](Vm::prepare). Returns how long it took to apply a vCPU's state.
    ///
    /// # Errors
    /// What the host says.
    pub fn warm_up(&mut self) -> Result<Duration, Error> {
        let state = self.machine.vcpu.capture()?;
        let began = Instant::now();
        self.machine.vcpu.apply(&state)?;
        let apply = began.elapsed();
        if let Some(net) = &self.machine.net {
            let running = link::wait_running(net.tap(), LINK_TIMEOUT);
            let failed = |source| Error::Host { doing: "ask about the TAP device", source };
            if !running.map_err(failed)? {
                let name = net.tap().name();
                tracing::warn!(
                    "TAP device {name} does not come up; packets to the guest are lost until it \
                     does"
                );
            }
        }
        Ok(apply)
    }

    /// Lets the guest send packets from addresses that are not its own.
    pub fn allow_spoofing(&mut self) {
        if let Some(net) = &mut self.machine.net {
            net.restrict_to(None);
        }
    }

    /// Holds its network and its console back to these rates from now on.
    pub fn limit(&mut self, rates: &Rates) {
        if let Some(net) = &mut self.machine.net {
            net.limit(rates.net);
        }
        self.machine.rings.limit(rates.console);
        *self.vm.shared.lock_rates() = *rates;
    }

    /// Tells the guest who it is on the network from now on.
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

    /// Says that the state is captured for a move. Until it is [fenced](Self::fence) one way or the
    /// other, a wish of the operator to pause or to resume it waits. Returns whether the operator
    /// wants it paused, which moves with it.
    #[must_use]
    pub fn leave(&self) -> bool {
        self.vm.shared.leave()
    }

    /// Keeps the machine from running here, whatever is asked, and from being announced, from right
    /// before the commit of a move until the destination has said that it never ran it there (rule
    /// R2).
    pub fn fence(&self, fenced: bool) {
        *self.vm.shared.lock_fenced() = fenced;
        self.vm.shared.fenced(fenced);
    }

    /// Says that the operator wants it paused: [`resume`](Self::resume) then leaves it so.
    ///
    /// # Errors
    /// [`Error::Ended`].
    pub fn hold_for_operator(&self) -> Result<(), Error> {
        self.vm.shared.hold(true).map(drop)
    }

    /// Keeps it paused beyond the operation that paused it, until the operator resumes it; or does
    /// not after all.
    pub fn keep(&self, kept: bool) {
        self.vm.shared.keep(kept);
    }

    /// Lets the machine run, unless the operator wants it paused: then it stays so, and the guest
    /// is told when it runs.
    ///
    /// # Errors
    /// [`Error::Ended`] if it was stopped meanwhile, [`Error::HandedOver`]; random numbers may be
    /// missing too.
    pub fn resume(mut self, how: Resume) -> Result<(), Error> {
        self.vm.shared.may_end()?;
        use ResumeReason::{Boot, Forked, Migrated, Restored, Resumed, Reverted};
        let reason = match (how.reason, self.machine.untold.take()) {
            (Resumed, Some(untold)) => untold,
            (Resumed, None) if self.vm.shared.stays_paused() => return Ok(()),
            (reason, _) => reason,
        };
        let new_generation = matches!(reason, Boot | Restored | Forked | Reverted);
        // What paused it may have copied its memory: a snapshot, a template of clones, a move that
        // failed. A move that succeeds leaves no other copy.
        let may_be_copied = reason != Migrated;
        let fresh = may_be_copied.then(|| Fresh::draw(new_generation)).transpose()?;
        self.machine.before_resume(reason, how.away, fresh.as_ref());
        self.runs = self.vm.shared.run()?;
        if !self.runs {
            self.machine.untold = Some(reason).filter(|reason| *reason != Resumed);
        }
        Ok(())
    }

    /// Lets a machine run on that was paused here and did not leave, unless the operator wants it
    /// paused.
    ///
    /// # Errors
    /// [`Error::Ended`].
    pub fn resume_here(self) -> Result<(), Error> {
        let away = self.stopped_for();
        self.resume(Resume { reason: ResumeReason::Resumed, away })
    }

    /// Reads the packets that still arrive here, to hand them on to where the machine runs now
    /// (rule R5).
    ///
    /// # Errors
    /// TAP errors.
    pub fn packets_in_transit(&self) -> Result<ForwardedPackets, Error> {
        let tap = self.machine.net.as_ref().map(|net| net.tap().try_clone()).transpose()?;
        Ok(ForwardedPackets::new(tap))
    }

    /// Ends this instance, because another now runs elsewhere (rules R1, R2).
    ///
    /// # Errors
    /// [`Error::Ended`] if it was stopped meanwhile.
    pub fn moved(self) -> Result<(), Error> {
        self.vm.shared.end_paused(End::Moved)
    }
}
