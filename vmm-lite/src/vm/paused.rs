//! Holding a machine that does not run.

use super::{
    Address, End, Error, LatePackets, ResumeReason, Steady, Vm, VmState,
    machine::{Fresh, Machine},
    shared::Phase,
};
use crate::{
    devices::link,
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
pub(super) const LINK_PATIENCE: Duration = Duration::from_secs(3);

/// A machine that is paused for as long as this is held, and after it is dropped until somebody resumes it.
#[derive(Debug)]
pub struct Paused<'vm> {
    vm: &'vm Vm,
    machine: MutexGuard<'vm, Machine>,
    requested: Instant,
}

/// How a machine goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Resume {
    /// Why it runs, as the guest is told.
    pub reason: ResumeReason,
    /// How long the guest's clock went on while it did not run, as the guest is told. (That the clock does go on is
    /// [`Paused::apply`]'s part.)
    pub away: Duration,
}

impl<'vm> Paused<'vm> {
    pub(super) fn new(vm: &'vm Vm, machine: MutexGuard<'vm, Machine>, requested: Instant) -> Self {
        Self { vm, machine, requested }
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
            Phase::Paused { since, .. } => (self.requested, since),
            _ => (self.requested, self.requested),
        }
    }

    /// The pages whose content does not matter as the guest stands: what it has given up, and more of it is quiescent.
    #[must_use]
    pub fn dont_care(&self) -> PageSet {
        let ram = self.vm.ram();
        ram.dont_care(ram.control_page())
    }

    /// The pages of the tables of the network queues, which the VMM reads and writes beside the guest.
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
    pub fn apply_steady(&mut self, steady: &Steady) -> Result<(), Error> {
        Ok(self.machine.apply_steady(steady)?)
    }

    /// Has the guest's pages [touched](crate::kvm::Vcpu::touch). For a machine whose state is applied after that.
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

    /// Takes a captured state over, `away` after it was captured. The memory has been written before.
    ///
    /// # Errors
    /// [`Error::Apply`]. The machine is then to be dropped.
    pub fn apply(&mut self, state: &VmState, away: Duration) -> Result<(), Error> {
        Ok(self.machine.apply(state, away, &self.vm.shared)?)
    }

    /// Goes the ways that are slow the first time, so that it is not the guest that waits for it: into the vCPU and out of it, and through the TAP.
    /// For a machine just [prepared](Vm::prepare). Returns how long it took to apply a vCPU's state.
    ///
    /// # Errors
    /// What the host says.
    pub fn warm_up(&mut self) -> Result<Duration, Error> {
        let state = self.machine.vcpu.capture()?;
        let began = Instant::now();
        self.machine.vcpu.apply(&state)?;
        let apply = began.elapsed();
        if let Some(net) = &self.machine.net {
            let running = link::wait_running(net.tap(), LINK_PATIENCE);
            let failed = |source| Error::Host { doing: "ask about the TAP device", source };
            if !running.map_err(failed)? {
                let name = net.tap().name();
                tracing::warn!(
                    "TAP device {name} does not come up; packets to the guest are lost until it does"
                );
            }
        }
        Ok(apply)
    }

    /// Tells the guest who it is on the network from now on.
    pub fn readdress(&self, address: &Address) {
        let ram = self.vm.ram();
        address.publish(&ram.control_page().address);
        ram.mark(CONTROL_PAGE, PAGE_SIZE as usize);
    }

    /// Keeps the machine from running here, whoever asks, and from being announced, from right before the commit of a move until the destination has said
    /// that it never ran it there (rule R2).
    pub fn fence(&self, fenced: bool) {
        *self.vm.shared.lock_fenced() = fenced;
    }

    /// Lets the machine run.
    ///
    /// # Errors
    /// [`Error::Ended`] if it was stopped meanwhile, [`Error::Fenced`]; random numbers may be missing too.
    pub fn resume(mut self, how: Resume) -> Result<(), Error> {
        if *self.vm.shared.lock_fenced() {
            return Err(Error::Fenced);
        }
        use ResumeReason::{Boot, Forked, Restored, Reverted};
        let new_generation = matches!(how.reason, Boot | Restored | Forked | Reverted);
        let fresh = new_generation.then(Fresh::draw).transpose()?;
        self.machine.before_resume(how.reason, how.away, fresh.as_ref());
        self.vm.shared.run()
    }

    /// Lets a machine run on that was paused here and did not leave.
    ///
    /// # Errors
    /// [`Error::Ended`].
    pub fn resume_here(self) -> Result<(), Error> {
        let (_, stopped) = self.times();
        self.resume(Resume { reason: ResumeReason::Resumed, away: stopped.elapsed() })
    }

    /// Reads the packets that still arrive here, to hand them on to where the machine runs now (rule R5).
    ///
    /// # Errors
    /// TAP errors.
    pub fn late_packets(&self) -> Result<LatePackets, Error> {
        let tap = self.machine.net.as_ref().map(|net| net.tap().try_clone()).transpose()?;
        Ok(LatePackets::new(tap))
    }

    /// Ends this instance, because another now runs elsewhere (rules R1, R2).
    ///
    /// # Errors
    /// [`Error::Ended`] if it was stopped meanwhile.
    pub fn moved(self) -> Result<(), Error> {
        self.vm.shared.end_paused(End::Moved)
    }
}
