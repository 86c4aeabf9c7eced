//! Has a routine of the guest's kernel read pages before the guest runs, so that KVM fills in its
//! own tables (shadow or nested) for them.
//!
//! Filling in an entry when the guest first touches a page takes 5 to 25 µs on a KVM without
//! hardware virtualization, which makes a guest slow for milliseconds after a move. A read
//! suffices: KVM makes the entry writable where the guest's own tables mark the page as written to.

use super::{Error, Vcpu, failed, user_mode};
use kvm_bindings::{kvm_regs, kvm_sregs, kvm_vcpu_events};
use kvm_ioctls::VcpuExit;
use vmm_lite_interface::doorbell;

/// A run of addresses: the first, and the number of pages.
pub type Run = (u64, u64);

/// The number of runs that fit the registers.
pub const RUNS: usize = 5;

impl Vcpu {
    /// Runs the routine at `routine` on `runs`, with the system registers of a guest at CPL 3.
    /// Afterwards the vCPU's state is meaningless but for what
    /// [`apply_invariant`](Vcpu::apply_invariant) has set.
    ///
    /// # Errors
    /// [`Error::State`] if the routine did anything else; [`Error::Call`]. The vCPU may then have
    /// changed the guest's memory.
    pub fn touch(
        &mut self,
        system: &kvm_sregs,
        routine: u64,
        runs: &[Run; RUNS],
    ) -> Result<(), Error> {
        let [(rdi, rsi), (r8, r9), (r10, r11), (r12, r13), (r14, r15)] = *runs;
        let (rdx, rflags) = (doorbell::PORT.into(), user_mode::RFLAGS);
        let sync = self.fd.sync_regs_mut();
        sync.sregs = *system;
        // Errors stay inside: without a table of handlers a fault writes nothing.
        sync.sregs.idt.limit = 0;
        sync.events = kvm_vcpu_events::default();
        sync.regs = kvm_regs {
            rip: routine,
            rflags,
            rdx,
            rdi,
            rsi,
            r8,
            r9,
            r10,
            r11,
            r12,
            r13,
            r14,
            r15,
            ..kvm_regs::default()
        };
        let kick = self.kick_handle();
        kick.enter(crate::host::this_thread(), || false);
        self.given = true;
        self.give();
        // An interrupted run is not repeated: a signal ends a routine that does not return.
        let ran = match self.fd.run() {
            Ok(VcpuExit::IoOut(doorbell::PORT, data)) if data.len() == 4 => Ok(()),
            Ok(_) => Err(Error::State("a routine for touching pages that does something else")),
            Err(e) => Err(failed("have the guest's pages touched")(e)),
        };
        kick.leave();
        ran?;
        self.settle("complete the last exit")?;
        self.taken = Some(*system);
        Ok(())
    }
}
