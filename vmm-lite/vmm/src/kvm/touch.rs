//! Has pages of a guest read by a routine of its kernel's before the guest runs, so that KVM has
//! filled in its own tables (shadow or nested) for them.
//!
//! Filling in an entry when the guest first touches a page takes 5 to 25 µs on a KVM without
//! hardware virtualization, which makes a guest that was just moved slow for milliseconds. A read
//! does: KVM makes the entry writable where the guest's own tables have the page marked as written
//! to.

use super::{Error, Vcpu, failed, user_mode};
use kvm_bindings::{kvm_regs, kvm_sregs, kvm_vcpu_events};
use kvm_ioctls::VcpuExit;
use vmm_lite_interface::doorbell;

/// Addresses in a row: the first, and how many pages.
pub type Run = (u64, u64);

/// Runs that fit the registers.
pub const RUNS: usize = 5;

impl Vcpu {
    /// Runs the routine at `routine` on `runs`, with the system registers of a guest at CPL 3. The
    /// vCPU holds nothing of worth afterwards but what [`apply_invariant`](Vcpu::apply_steady) has
    /// set.
    ///
    /// # Errors
    /// [`Error::State`] if it did anything else than what it is for; [`Error::Call`]. The vCPU may
    /// then have changed the guest's memory.
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
        // Whatever goes wrong there ends there: without a table of handlers a fault writes nothing.
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
        // Not to its end: a signal is how one that does not end is cut short.
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
