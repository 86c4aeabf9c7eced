//! The vCPU: entering the guest, and why it exited.

use super::{
    Error, ImmediateExit, InvariantVcpuState, Kick, PageFaults, VcpuState, cpu, entry, failed,
    state::{self, SYNC_ALL},
};
use crate::host::this_thread;
use crate::memory::GuestRam;
use kvm_bindings::{
    KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET, KVMIO, kvm_device_attr, kvm_sregs, kvm_xcrs,
};
use kvm_ioctls::{Cap, VcpuExit, VcpuFd, VmFd};
use std::sync::Arc;
use vmm_sys_util::{ioctl::ioctl_with_ref, ioctl_iow_nr};

ioctl_iow_nr!(KVM_SET_DEVICE_ATTR, KVMIO, 0xe1, kvm_device_attr);

/// Why the guest stopped running.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Exit {
    /// A [kick](Kick::kick) or a signal arrived.
    Kicked,
    /// `out` of a value of `size` bytes.
    PortWrite {
        /// The port.
        port: u16,
        /// 1, 2 or 4; more for a string of them.
        size: usize,
        /// The value, unless it is a string.
        value: u32,
    },
    /// `in`.
    PortRead {
        /// The port.
        port: u16,
    },
    /// A read outside RAM. [`Vcpu::answer_read`] answers it.
    MmioRead {
        /// Guest-physical address.
        address: u64,
        /// Bytes asked for, at most 8.
        len: usize,
    },
    /// A write outside RAM.
    MmioWrite {
        /// Guest-physical address.
        address: u64,
        /// The first `len` of these were written.
        data: [u8; 8],
        /// At most 8.
        len: usize,
    },
    /// `hlt`.
    Halted,
    /// A triple fault.
    TripleFault,
    /// KVM cannot run the guest's code, such as an instruction that it cannot emulate.
    Cannot {
        /// KVM's reason.
        what: String,
        /// The guest's instruction pointer.
        rip: u64,
    },
}

/// What the last exit left for a capture.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Left {
    /// Nothing, or something that only KVM can complete.
    Unknown,
    /// The registers, as returned by the exit.
    Registers,
    /// The registers, from before or after the `out` for which the guest exited: which one depends
    /// on how KVM handled it.
    RegistersAtOut,
}

/// A vCPU, which keeps the VM alive.
pub struct Vcpu {
    pub(super) fd: VcpuFd,
    /// MSRs to capture, of those that this host has.
    pub(super) msrs: Vec<u32>,
    /// State that a capture need not read: it was read before and does not change.
    pub(super) invariant: Option<InvariantVcpuState>,
    /// What was set since the guest last ran.
    pub(super) set: Option<InvariantVcpuState>,
    /// System registers that KVM has accepted for this guest, if it has.
    pub(super) taken: Option<kvm_sregs>,
    /// Whether `KVM_RUN` is to accept the registers in its page.
    pub(super) given: bool,
    /// What was captured since the guest last ran.
    pub(super) captured: Option<VcpuState>,
    /// What the last exit left behind.
    pub(super) left: Left,
    /// An `out` that KVM has completed: the instruction pointer when the guest exited for it, and
    /// the one at which it continued.
    pub(super) completed: Option<(u64, u64)>,
    kick: Arc<Kick>,
    /// `None` where KVM does not count page faults.
    page_faults: Option<Arc<PageFaults>>,
    _vm: Arc<VmFd>,
    /// The guest's memory, which must outlive the VM.
    _ram: Arc<GuestRam>,
}

impl Vcpu {
    pub(super) fn new(
        mut fd: VcpuFd,
        vm: Arc<VmFd>,
        ram: Arc<GuestRam>,
        msrs: &[u32],
    ) -> Result<Self, Error> {
        if vm.check_extension_int(Cap::SyncRegs) & SYNC_ALL as i32 != SYNC_ALL as i32 {
            return Err(Error::Lacks("KVM_CAP_SYNC_REGS"));
        }
        use_host_tsc(&fd);
        // SAFETY: the page stays mapped as long as `fd`, which this vCPU owns; users of the handle
        // hold the vCPU too (see `vm::Shared`).
        let kick = Arc::new(Kick::new(unsafe { ImmediateExit::new(fd.get_kvm_run()) }));
        let msrs = state::MSRS.iter().copied().filter(|m| msrs.contains(m)).collect();
        let page_faults = PageFaults::of(&fd, &vm)
            .inspect_err(|e| tracing::info!("page faults are not counted: {e}"))
            .ok()
            .map(Arc::new);
        Ok(Self {
            fd,
            msrs,
            invariant: None,
            set: None,
            taken: None,
            given: false,
            captured: None,
            left: Left::Unknown,
            completed: None,
            kick,
            page_faults,
            _vm: vm,
            _ram: ram,
        })
    }

    /// Sets the registers for the start of an image at `entry`.
    ///
    /// # Errors
    /// [`Error::Call`].
    pub fn set_entry(&mut self, entry: u64) -> Result<(), Error> {
        let sregs = self.fd.get_sregs().map_err(failed("read the system registers"))?;
        self.fd.set_sregs(&entry::sregs(sregs)).map_err(failed("set the system registers"))?;
        self.fd.set_regs(&entry::regs(entry)).map_err(failed("set the registers"))?;
        if !cpu::sees_host_cpuid() {
            let mut xcrs = kvm_xcrs { nr_xcrs: 1, ..Default::default() };
            xcrs.xcrs[0].value = 1;
            self.fd.set_xcrs(&xcrs).map_err(failed("set XCR0"))?;
        }
        Ok(())
    }

    /// Ticks of the guest's TSC per second.
    ///
    /// # Errors
    /// [`Error::Lacks`] on a host whose TSC is not stable.
    pub fn tsc_hz(&self) -> Result<u64, Error> {
        match self.fd.get_tsc_khz() {
            Ok(khz @ 1..) => Ok(u64::from(khz) * 1000),
            _ => Err(Error::Lacks("a stable TSC (KVM_GET_TSC_KHZ)")),
        }
    }

    /// The handle for kicking this vCPU.
    #[must_use]
    pub fn kick_handle(&self) -> Arc<Kick> {
        Arc::clone(&self.kick)
    }

    /// The counter of its page faults, where KVM has one.
    #[must_use]
    pub fn page_faults(&self) -> Option<Arc<PageFaults>> {
        self.page_faults.clone()
    }

    /// Makes each exit return the registers, for a capture that is near; it costs a microsecond or
    /// two for each exit.
    pub fn hand_over_registers(&mut self, near: bool) {
        self.fd.get_kvm_run().kvm_valid_regs = if near { SYNC_ALL.into() } else { 0 };
    }

    /// Runs the guest until it exits. The caller has gone through [`Kick::enter`].
    ///
    /// # Errors
    /// [`Error::Call`] when KVM itself fails.
    pub fn run(&mut self) -> Result<Exit, Error> {
        (self.set, self.captured, self.left) = (None, None, Left::Unknown);
        self.give();
        let hands_over = self.fd.get_kvm_run().kvm_valid_regs != 0;
        let exit = match self.fd.run() {
            Ok(exit) => exit,
            Err(e) if matches!(e.errno(), libc::EINTR | libc::EAGAIN) => {
                if hands_over && e.errno() == libc::EINTR {
                    self.left = Left::Registers;
                }
                return Ok(Exit::Kicked);
            }
            Err(e) => return Err(failed("run the guest")(e)),
        };
        let what = match exit {
            VcpuExit::IoOut(port, data) => {
                let mut value = [0; 4];
                let n = data.len().min(4);
                value[..n].copy_from_slice(&data[..n]);
                let value = u32::from_le_bytes(value);
                if hands_over {
                    self.left = Left::RegistersAtOut;
                }
                return Ok(Exit::PortWrite { port, size: data.len(), value });
            }
            VcpuExit::IoIn(port, data) => {
                data.fill(0xff);
                return Ok(Exit::PortRead { port });
            }
            VcpuExit::MmioRead(address, data) => {
                return Ok(Exit::MmioRead { address, len: data.len() });
            }
            VcpuExit::MmioWrite(address, from) => {
                let mut data = [0; 8];
                data[..from.len()].copy_from_slice(from);
                return Ok(Exit::MmioWrite { address, data, len: from.len() });
            }
            VcpuExit::Hlt => return Ok(Exit::Halted),
            VcpuExit::Shutdown => return Ok(Exit::TripleFault),
            VcpuExit::Intr => return Ok(Exit::Kicked),
            VcpuExit::InternalError => String::new(),
            other => format!("{other:?}"),
        };
        let what = if what.is_empty() { self.internal_error() } else { what };
        let rip = self.fd.get_regs().map_or(0, |r| r.rip);
        Ok(Exit::Cannot { what, rip })
    }

    /// Runs code of the VMM's own until it exits by itself. Any signal to this thread ends KVM_RUN,
    /// such as the one by which glibc makes all threads change their user, and says nothing about
    /// the code.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub(super) fn run_to_exit(&mut self) -> Result<Exit, Error> {
        until_not_kicked(|| {
            let kick = self.kick_handle();
            kick.enter(this_thread(), || false);
            let exit = self.run();
            kick.leave();
            exit
        })
    }

    fn internal_error(&mut self) -> String {
        // SAFETY: the exit reason selects this field of the union; it has only integers.
        let suberror = unsafe { self.fd.get_kvm_run().__bindgen_anon_1.internal.suberror };
        match suberror {
            1 => "an instruction that KVM cannot emulate (SSE or AVX at CPL 0, on a host without \
                hardware virtualization?)"
                .into(),
            n => format!("internal error {n}"),
        }
    }

    /// Answers the [`Exit::MmioRead`] that `run` last returned.
    pub fn answer_read(&mut self, data: &[u8]) {
        // SAFETY: the exit was an MMIO read, which selects this field of the union; it has only
        // bytes.
        let mmio = unsafe { &mut self.fd.get_kvm_run().__bindgen_anon_1.mmio };
        let n = data.len().min(8);
        mmio.data[..n].copy_from_slice(&data[..n]);
    }
}

impl std::fmt::Debug for Vcpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vcpu").field("msrs", &self.msrs).finish_non_exhaustive()
    }
}

/// Makes the guest's TSC equal to the host's, so that both sides of the control page's clock read
/// the same counter. Where the attribute is missing (kvm-pvm), they are equal anyway.
fn use_host_tsc(fd: &VcpuFd) {
    let offset: i64 = 0;
    let attr = kvm_device_attr {
        group: KVM_VCPU_TSC_CTRL,
        attr: u64::from(KVM_VCPU_TSC_OFFSET),
        addr: &raw const offset as u64,
        flags: 0,
    };
    // SAFETY: KVM reads the offset that `attr` points to, which outlives the call.
    if unsafe { ioctl_with_ref(fd, KVM_SET_DEVICE_ATTR(), &attr) } != 0 {
        let e = std::io::Error::last_os_error();
        tracing::debug!("the TSC offset stays as it is: {e}");
    }
}

/// The first result that was not an interruption, or the last of very many.
fn until_not_kicked(mut run: impl FnMut() -> Result<Exit, Error>) -> Result<Exit, Error> {
    const ATTEMPTS: usize = 10_000;
    for _ in 1..ATTEMPTS {
        match run()? {
            Exit::Kicked => {}
            exit => return Ok(exit),
        }
    }
    run()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_is_interrupted_is_repeated() {
        let mut exits = [Exit::Kicked, Exit::Kicked, Exit::Halted].into_iter();
        assert_eq!(until_not_kicked(|| Ok(exits.next().unwrap())).unwrap(), Exit::Halted);
        assert_eq!(until_not_kicked(|| Ok(Exit::Kicked)).unwrap(), Exit::Kicked, "it ends");
    }
}
