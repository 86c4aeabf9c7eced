//! Everything a vCPU holds, captured and applied.

use super::{Error, Vcpu, cpu::XCR0_MAX, failed};
use kvm_bindings::{
    KVM_SYNC_X86_EVENTS, KVM_SYNC_X86_REGS, KVM_SYNC_X86_SREGS, Msrs, kvm_msr_entry, kvm_regs,
    kvm_sregs, kvm_vcpu_events, kvm_xcrs, kvm_xsave,
};
use serde::{Deserialize, Serialize};

/// What `KVM_RUN` can hand over and take by itself.
pub(super) const SYNC_ALL: u32 = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS | KVM_SYNC_X86_EVENTS;

/// MSRs that belong to the guest's state and that it could have set: SYSENTER, PAT, syscall entry, GS base of the kernel, TSC_AUX. FS and GS
/// base and EFER are in the system registers. The TSC is not among them: the guest's clock is in the control page.
pub(super) const MSRS: [u32; 10] = [
    0x174,
    0x175,
    0x176,
    0x277,
    0xc000_0081,
    0xc000_0082,
    0xc000_0083,
    0xc000_0084,
    0xc000_0102,
    0xc000_0103,
];

/// One MSR.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Msr {
    /// Its number.
    pub index: u32,
    /// Its value.
    pub value: u64,
}

/// Everything a vCPU holds, in KVM's own (stable) types. Without an interrupt controller in the kernel there is no MP state but "runnable", and each call
/// that is left out is nine microseconds less of blackout on either side (on a KVM without hardware virtualization).
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct VcpuState {
    /// General purpose registers.
    pub regs: kvm_regs,
    /// Control and segment registers.
    pub sregs: kvm_sregs,
    /// Exceptions under way.
    pub events: kvm_vcpu_events,
    /// Extended control registers.
    pub xcrs: kvm_xcrs,
    /// x87, SSE, AVX, AVX-512: KVM's XSAVE area without the zeros at its end.
    pub xsave: Vec<u8>,
    /// The MSRs this host has of those that matter.
    pub msrs: Vec<Msr>,
}

/// What the monitor sets before the guest's first instruction at CPL 3, and never again.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct SteadyState {
    xcrs: kvm_xcrs,
    msrs: Vec<Msr>,
}

impl Vcpu {
    /// Reads what is not going to change any more, so that a capture need not. For a guest that is at CPL 3.
    ///
    /// # Errors
    /// [`Error::Call`].
    pub fn note_steady(&mut self) -> Result<&SteadyState, Error> {
        let steady = self.read_steady()?;
        Ok(self.steady.insert(steady))
    }

    fn read_steady(&self) -> Result<SteadyState, Error> {
        let entry = |&index: &u32| kvm_msr_entry { index, ..Default::default() };
        let entries: Vec<_> = self.msrs.iter().map(entry).collect();
        let mut msrs = Msrs::from_entries(&entries).expect("a handful of MSRs");
        let read = self.fd.get_msrs(&mut msrs).map_err(failed("read the MSRs"))?;
        if read != self.msrs.len() {
            return Err(Error::State("an MSR that KVM lists and cannot read"));
        }
        let msrs = msrs.as_slice().iter().map(|m| Msr { index: m.index, value: m.data }).collect();
        Ok(SteadyState { xcrs: self.fd.get_xcrs().map_err(failed("read the XCRs"))?, msrs })
    }

    /// Has KVM take and hand over registers, and complete what the last exit left open, without a step into the guest.
    pub(super) fn settle(&mut self, doing: &'static str) -> Result<(), Error> {
        self.kick_handle().exit_at_once();
        let ran = self.fd.run().map(|_| ());
        interrupted(ran, doing)
    }

    /// The system registers, of a guest that does not run.
    ///
    /// # Errors
    /// [`Error::Call`].
    pub fn system(&self) -> Result<kvm_sregs, Error> {
        self.fd.get_sregs().map_err(failed("read the system registers"))
    }

    /// Sets that much of a state that is to be [applied](Self::apply), unless it is set.
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    pub fn apply_steady(&mut self, steady: &SteadyState) -> Result<(), Error> {
        steady.check()?;
        if self.set.as_ref() == Some(steady) {
            return Ok(());
        }
        self.set = None;
        let entry = |m: &Msr| kvm_msr_entry { index: m.index, data: m.value, ..Default::default() };
        let msrs: Vec<_> = steady.msrs.iter().map(entry).collect();
        let msrs = Msrs::from_entries(&msrs).map_err(|_| Error::State("too many MSRs"))?;
        self.fd.set_xcrs(&steady.xcrs).map_err(failed("set the XCRs"))?;
        if self.fd.set_msrs(&msrs).map_err(failed("set the MSRs"))? != steady.msrs.len() {
            return Err(Error::State("an MSR that this host does not have"));
        }
        self.set = Some(steady.clone());
        Ok(())
    }

    /// Completes what the last exit left open (an `out` whose instruction KVM has not stepped over yet) and captures.
    ///
    /// # Errors
    /// [`Error::Call`].
    pub fn capture(&mut self) -> Result<VcpuState, Error> {
        self.fd.get_kvm_run().kvm_valid_regs = u64::from(SYNC_ALL);
        let settled = self.settle("complete the last exit");
        self.fd.get_kvm_run().kvm_valid_regs = 0;
        settled?;
        let SteadyState { xcrs, msrs } = match &self.steady {
            Some(steady) => steady.clone(),
            None => self.read_steady()?,
        };
        let sync = self.fd.sync_regs();
        Ok(VcpuState {
            regs: sync.regs,
            sregs: sync.sregs,
            events: sync.events,
            xcrs,
            xsave: trimmed(&self.fd.get_xsave().map_err(failed("read the FPU state"))?),
            msrs,
        })
    }

    /// Sets everything. When this returns the vCPU has taken it all: nothing is left that could fail when it runs.
    ///
    /// # Errors
    /// [`Error::State`] for what no guest of vmm-lite can have, [`Error::Call`] for what KVM refuses.
    pub fn apply(&mut self, state: &VcpuState) -> Result<(), Error> {
        let xsave = padded(&state.xsave).ok_or(Error::State("too much FPU state"))?;
        let steady = SteadyState { xcrs: state.xcrs, msrs: state.msrs.clone() };
        self.apply_steady(&steady)?;
        self.steady = None;
        // SAFETY: KVM reads the 4096 bytes of the structure, no more: XCR0 was checked not to name components that need more.
        unsafe { self.fd.set_xsave(&xsave) }.map_err(failed("set the FPU state"))?;
        let sync = self.fd.sync_regs_mut();
        (sync.regs, sync.sregs, sync.events) = (state.regs, state.sregs, state.events);
        // The vCPU may have exited before for something that was left open; it is not the new state's.
        self.fd.get_kvm_run().kvm_dirty_regs = u64::from(SYNC_ALL);
        let settled = self.settle("set the registers");
        self.fd.get_kvm_run().kvm_dirty_regs = 0;
        settled
    }
}

impl SteadyState {
    fn check(&self) -> Result<(), Error> {
        if self.msrs.iter().any(|m| !MSRS.contains(&m.index)) {
            return Err(Error::State("an MSR that is not part of a guest's state"));
        }
        if self
            .msrs
            .iter()
            .enumerate()
            .any(|(i, m)| self.msrs[..i].iter().any(|o| o.index == m.index))
        {
            return Err(Error::State("an MSR twice"));
        }
        let xcrs = self.xcrs.xcrs.get(..self.xcrs.nr_xcrs as usize);
        if xcrs
            .ok_or(Error::State("too many XCRs"))?
            .iter()
            .any(|x| x.xcr != 0 || x.value & !XCR0_MAX != 0)
        {
            return Err(Error::State("state components switched on that vmm-lite does not move"));
        }
        Ok(())
    }
}

/// The bytes of an XSAVE area up to the last that is not zero.
fn trimmed(xsave: &kvm_xsave) -> Vec<u8> {
    let mut bytes: Vec<u8> = xsave.region.iter().flat_map(|w| w.to_le_bytes()).collect();
    bytes.truncate(bytes.iter().rposition(|&b| b != 0).map_or(0, |last| last + 1));
    bytes
}

/// Undoes [`trimmed`]; `None` for what cannot have come from it.
fn padded(bytes: &[u8]) -> Option<kvm_xsave> {
    let mut xsave = kvm_xsave::default();
    let mut area = [0; 4096];
    area.get_mut(..bytes.len())?.copy_from_slice(bytes);
    for (word, bytes) in xsave.region.iter_mut().zip(area.as_chunks::<4>().0) {
        *word = u32::from_le_bytes(*bytes);
    }
    Some(xsave)
}

/// The only right outcome of a run that was told to exit at once.
fn interrupted(ran: Result<(), kvm_ioctls::Error>, doing: &'static str) -> Result<(), Error> {
    match ran {
        Err(e) if e.errno() == libc::EINTR => Ok(()),
        Err(e) => Err(failed(doing)(e)),
        Ok(()) => Err(Error::State("an instruction under way that needs the VMM")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fpu_state_survives_without_its_zeros() {
        let mut xsave = kvm_xsave::default();
        xsave.region[3] = 0x0102_0304;
        xsave.region[700] = 0x80;
        let bytes = trimmed(&xsave);
        assert_eq!(bytes.len(), 2801);
        assert_eq!(padded(&bytes).unwrap().region, xsave.region);
        assert!(padded(&[0; 4097]).is_none());
        assert!(trimmed(&kvm_xsave::default()).is_empty());
    }
}
