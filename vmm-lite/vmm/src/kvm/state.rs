//! The complete state of a vCPU, captured and applied.

use super::{Error, Vcpu, cpu::XCR0_MAX, failed, vcpu::Left};
use kvm_bindings::{
    KVM_SYNC_X86_EVENTS, KVM_SYNC_X86_REGS, KVM_SYNC_X86_SREGS, KVM_VCPUEVENT_VALID_NMI_PENDING,
    KVM_VCPUEVENT_VALID_SHADOW, KVM_VCPUEVENT_VALID_SMM, Msrs, kvm_msr_entry, kvm_regs, kvm_sregs,
    kvm_vcpu_events, kvm_xcrs, kvm_xsave,
};
use serde::{Deserialize, Serialize};
use vcpu_control::Guest;

/// Registers that `KVM_RUN` can return and accept by itself.
pub(super) const SYNC_ALL: u32 = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS | KVM_SYNC_X86_EVENTS;

/// Flags of the events that `KVM_RUN` returns: they include pending NMI, interrupt shadow and SMM.
const EVENTS_VALID: u32 =
    KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW | KVM_VCPUEVENT_VALID_SMM;

/// MSRs that belong to the guest's state and that it could have set: SYSENTER, PAT, syscall entry,
/// GS base of the kernel, TSC_AUX. FS and GS base and EFER are in the system registers. The TSC is
/// not among them: the guest's clock is in the control page.
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

/// The complete state of a vCPU, in KVM's own (stable) types. Without an interrupt controller in
/// the kernel there is no MP state but "runnable", and each call that is omitted saves nine
/// microseconds of blackout on either side (on a KVM without hardware virtualization).
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct VcpuState {
    /// General purpose registers.
    pub regs: kvm_regs,
    /// Control and segment registers.
    pub sregs: kvm_sregs,
    /// Exceptions in progress.
    pub events: kvm_vcpu_events,
    /// Extended control registers.
    pub xcrs: kvm_xcrs,
    /// x87, SSE, AVX, AVX-512: KVM's XSAVE area without the zeros at its end.
    #[serde(with = "serde_bytes")]
    pub xsave: Vec<u8>,
    /// Those of the relevant MSRs that this host has.
    pub msrs: Vec<Msr>,
}

/// What the monitor sets before the guest's first instruction at CPL 3, and never again.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct InvariantVcpuState {
    xcrs: kvm_xcrs,
    msrs: Vec<Msr>,
}

impl Vcpu {
    /// Reads the invariant state, so that a capture need not. For a guest at CPL 3.
    ///
    /// # Errors
    /// [`Error::Call`].
    pub fn note_invariant(&mut self) -> Result<&InvariantVcpuState, Error> {
        let invariant = self.read_steady()?;
        Ok(self.invariant.insert(invariant))
    }

    fn read_steady(&self) -> Result<InvariantVcpuState, Error> {
        let entry = |&index: &u32| kvm_msr_entry { index, ..Default::default() };
        let entries: Vec<_> = self.msrs.iter().map(entry).collect();
        let mut msrs = Msrs::from_entries(&entries).expect("a handful of MSRs");
        let read = self.fd.get_msrs(&mut msrs).map_err(failed("read the MSRs"))?;
        if read != self.msrs.len() {
            return Err(Error::State("an MSR that KVM lists and cannot read"));
        }
        let msrs = msrs.as_slice().iter().map(|m| Msr { index: m.index, value: m.data }).collect();
        Ok(InvariantVcpuState { xcrs: self.fd.get_xcrs().map_err(failed("read the XCRs"))?, msrs })
    }

    /// Makes the next `KVM_RUN` accept the registers, if some are pending.
    pub(super) fn give(&mut self) {
        let given = std::mem::take(&mut self.given);
        self.fd.get_kvm_run().kvm_dirty_regs = if given { SYNC_ALL.into() } else { 0 };
    }

    /// Makes KVM accept and return registers and complete the last exit, without entering the
    /// guest.
    pub(super) fn settle(&mut self, doing: &'static str) -> Result<(), Error> {
        self.give();
        self.kick_handle().guest().exit_at_once(true);
        let ran = self.fd.run().map(|_| ());
        interrupted(ran, doing)
    }

    /// The system registers of a guest that does not run.
    ///
    /// # Errors
    /// [`Error::Call`].
    pub fn system(&self) -> Result<kvm_sregs, Error> {
        self.fd.get_sregs().map_err(failed("read the system registers"))
    }

    /// Sets the invariant part of a state that is to be [applied](Self::apply), unless it is set.
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    pub fn apply_invariant(&mut self, invariant: &InvariantVcpuState) -> Result<(), Error> {
        invariant.check()?;
        if self.set.as_ref() == Some(invariant) {
            return Ok(());
        }
        self.set = None;
        let entry = |m: &Msr| kvm_msr_entry { index: m.index, data: m.value, ..Default::default() };
        let msrs: Vec<_> = invariant.msrs.iter().map(entry).collect();
        let msrs = Msrs::from_entries(&msrs).map_err(|_| Error::State("too many MSRs"))?;
        self.fd.set_xcrs(&invariant.xcrs).map_err(failed("set the XCRs"))?;
        if self.fd.set_msrs(&msrs).map_err(failed("set the MSRs"))? != invariant.msrs.len() {
            return Err(Error::State("an MSR that this host does not have"));
        }
        self.set = Some(invariant.clone());
        Ok(())
    }

    /// Captures early for a [`capture`](Self::capture) that may follow before the guest runs again.
    ///
    /// # Errors
    /// [`Error::Call`].
    pub fn capture_early(&mut self) -> Result<(), Error> {
        if self.captured.is_none() {
            self.captured = Some(self.capture()?);
        }
        Ok(())
    }

    /// Completes the last exit (KVM may not have stepped over the instruction of an `out` yet) and
    /// captures.
    ///
    /// # Errors
    /// [`Error::Call`].
    pub fn capture(&mut self) -> Result<VcpuState, Error> {
        if let Some(captured) = &self.captured {
            return Ok(captured.clone());
        }
        let regs = self.final_regs()?;
        let InvariantVcpuState { xcrs, msrs } = match &self.invariant {
            Some(invariant) => invariant.clone(),
            None => self.read_steady()?,
        };
        let sync = self.fd.sync_regs();
        Ok(VcpuState {
            regs,
            sregs: sync.sregs,
            events: sync.events,
            xcrs,
            xsave: trimmed(&self.fd.get_xsave().map_err(failed("read the FPU state"))?),
            msrs,
        })
    }

    /// The general purpose registers with which the guest will continue. KVM returns the other
    /// registers with them.
    fn final_regs(&mut self) -> Result<kvm_regs, Error> {
        let mut regs = self.fd.sync_regs().regs;
        match (self.left, self.completed) {
            (Left::Registers, _) => return Ok(regs),
            // This omits a call of KVM, which takes 20 µs on one without hardware virtualization:
            // the same instruction has the same effect.
            (Left::RegistersAtOut, Some((at, next))) if at == regs.rip => {
                regs.rip = next;
                return Ok(regs);
            }
            _ => {}
        }
        let at_out = (self.left == Left::RegistersAtOut).then_some(regs.rip);
        self.fd.get_kvm_run().kvm_valid_regs = u64::from(SYNC_ALL);
        let settled = self.settle("complete the last exit");
        self.fd.get_kvm_run().kvm_valid_regs = 0;
        settled?;
        self.left = Left::Registers;
        let regs = self.fd.sync_regs().regs;
        self.completed = at_out.map(|at| (at, regs.rip)).or(self.completed);
        Ok(regs)
    }

    /// Has the guest go on at `rip` instead, with the other registers as the last exit leaves them.
    ///
    /// # Errors
    /// [`Error::Call`].
    pub fn set_rip(&mut self, rip: u64) -> Result<(), Error> {
        let regs = kvm_regs { rip, ..self.final_regs()? };
        (self.captured, self.left) = (None, Left::Unknown);
        self.fd.set_regs(&regs).map_err(failed("set the registers"))
    }

    /// Sets the whole state. When this returns the vCPU has accepted it, or will when it runs:
    /// nothing can fail then.
    ///
    /// # Errors
    /// [`Error::State`] for a state that no guest of vmm-lite can have, [`Error::Call`] for one
    /// that KVM refuses.
    pub fn apply(&mut self, state: &VcpuState) -> Result<(), Error> {
        let xsave = padded(&state.xsave).ok_or(Error::State("too much FPU state"))?;
        let invariant = InvariantVcpuState { xcrs: state.xcrs, msrs: state.msrs.clone() };
        self.apply_invariant(&invariant)?;
        (self.invariant, self.captured, self.left) = (None, None, Left::Unknown);
        let taken = self.taken.take();
        // SAFETY: KVM reads the 4096 bytes of the structure, no more: XCR0 was checked not to name
        // components that need more.
        unsafe { self.fd.set_xsave(&xsave) }.map_err(failed("set the FPU state"))?;
        let sync = self.fd.sync_regs_mut();
        (sync.regs, sync.sregs, sync.events) = (state.regs, state.sregs, state.events);
        self.given = true;
        if taken.is_some_and(|taken| state.is_taken_after(&taken)) {
            return Ok(());
        }
        // The vCPU's last exit may be incomplete; it does not belong to the new state.
        self.settle("set the registers")
    }
}

impl VcpuState {
    /// Whether the guest's addresses go through tables.
    #[must_use]
    pub fn paged(&self) -> bool {
        self.sregs.cr0 & 1 << 31 != 0
    }

    /// Whether KVM, which has accepted these system registers, is certain to accept this state.
    fn is_taken_after(&self, taken: &kvm_sregs) -> bool {
        let canonical = |address: u64| (address as i64) << 16 >> 16 == address as i64;
        let mut sregs = self.sregs;
        let bases = [sregs.fs.base, sregs.gs.base];
        (sregs.fs.base, sregs.gs.base, sregs.cr2) = (taken.fs.base, taken.gs.base, taken.cr2);
        // No exception may be in progress; the remains of a finished one do not matter.
        let kvm_vcpu_events { exception, flags, .. } = self.events;
        let nothing = kvm_vcpu_events { exception, flags, ..kvm_vcpu_events::default() };
        sregs == *taken
            && bases.into_iter().all(canonical)
            && self.events == nothing
            && exception.injected == 0
            && exception.pending == 0
            && flags & !EVENTS_VALID == 0
    }
}

impl InvariantVcpuState {
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
            return Err(Error::State("state components enabled that vmm-lite does not support"));
        }
        Ok(())
    }
}

/// The bytes of an XSAVE area up to the last non-zero one.
fn trimmed(xsave: &kvm_xsave) -> Vec<u8> {
    let words = xsave.region.iter().rposition(|&w| w != 0).map_or(0, |last| last + 1);
    let mut bytes = vec![0; 4 * words];
    for (bytes, word) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(&xsave.region) {
        *bytes = word.to_le_bytes();
    }
    bytes.truncate(bytes.iter().rposition(|&b| b != 0).map_or(0, |last| last + 1));
    bytes
}

/// Undoes [`trimmed`]; `None` for bytes that it cannot have returned.
fn padded(bytes: &[u8]) -> Option<kvm_xsave> {
    let mut xsave = kvm_xsave::default();
    let mut area = [0; 4096];
    area.get_mut(..bytes.len())?.copy_from_slice(bytes);
    for (word, bytes) in xsave.region.iter_mut().zip(area.as_chunks::<4>().0) {
        *word = u32::from_le_bytes(*bytes);
    }
    Some(xsave)
}

/// The only valid outcome of a run that was told to exit at once.
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
    fn a_state_that_kvm_could_refuse_is_tried_before_the_guest_runs() {
        let taken = kvm_sregs { cr0: 0x8001_0033, cr3: 0x20_0000, ..Default::default() };
        let mut state = VcpuState {
            regs: kvm_regs::default(),
            sregs: taken,
            events: kvm_vcpu_events { flags: EVENTS_VALID, ..Default::default() },
            xcrs: kvm_xcrs::default(),
            xsave: Vec::new(),
            msrs: Vec::new(),
        };
        // Values that a program changes, and that a finished exception leaves.
        state.sregs.fs.base = 0x7fff_ffff_f000;
        state.sregs.gs.base = 0xffff_8000_0000_0000;
        state.sregs.cr2 = 0x1234;
        (state.events.exception.nr, state.events.exception.has_error_code) = (14, 1);
        assert!(state.is_taken_after(&taken));
        let refused: [fn(&mut VcpuState); 9] = [
            |s| s.sregs.fs.base = 0x8000_0000_0000,
            |s| s.sregs.gs.base = 1 << 63,
            |s| s.sregs.fs.limit = 1,
            |s| s.sregs.cr4 = 1 << 5,
            |s| s.events.exception.pending = 1,
            |s| s.events.exception.injected = 1,
            |s| s.events.interrupt.shadow = 1,
            |s| s.events.nmi.masked = 1,
            |s| s.events.flags = 1 << 31,
        ];
        for change in refused {
            let mut state = state.clone();
            change(&mut state);
            assert!(!state.is_taken_after(&taken), "{state:?}");
        }
    }

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
