//! Tests whether this host's KVM can run a VM that was captured elsewhere, with a VM made for the
//! purpose.
//!
//! It runs a few instructions at CPL 3 that ring the doorbell, from registers that the VMM has set;
//! then it captures the state, applies it, and continues. A KVM that cannot do this, as on some
//! emulated CPUs, would end a VM with its first instruction after a move, when the source has
//! handed it over.

use super::{Error, Exit, Host, failed, user_mode};
use crate::memory::{GuestRam, PAGE, Writable};
use kvm_bindings::kvm_regs;
use std::{arch::global_asm, sync::Arc, thread};
use vmm_lite_interface::doorbell::PORT;

const MEMORY: u64 = 2 << 20;
const ROOT: u64 = 0x1000;
const LAST_TABLE: u64 = 0x4000;
const TSS: u64 = 0x6000;
/// The TSS, followed by an I/O bitmap that allows all ports, for a KVM that ignores IOPL.
const TSS_SIZE: u32 = 104;
const PORT_MAP: u32 = 8192 + 1;
const CODE: u64 = 0xa000;
/// What the code adds in each pass.
const STEP: u32 = 0x0102_0304;
const STACK: usize = 128 << 10;

global_asm!(
    ".pushsection .rodata.vmm_lite_self_test, \"a\"",
    ".global vmm_lite_self_test, vmm_lite_self_test_end",
    "vmm_lite_self_test:",
    "2: add eax, edi",
    "movq xmm7, rax",
    "movq rax, xmm7",
    "out dx, eax",
    "jmp 2b",
    "vmm_lite_self_test_end:",
    ".popsection",
);

fn code() -> &'static [u8] {
    unsafe extern "C" {
        static vmm_lite_self_test: u8;
        static vmm_lite_self_test_end: u8;
    }
    let (start, end) = (&raw const vmm_lite_self_test, &raw const vmm_lite_self_test_end);
    // SAFETY: both symbols are defined right above, the second behind the first in one section of
    // constants.
    unsafe { std::slice::from_raw_parts(start, end.offset_from_unsigned(start)) }
}

/// A self-test that runs on its own thread while the process makes a VM.
#[derive(Debug)]
pub struct SelfTest(Result<thread::JoinHandle<Result<(), Error>>, Host>);

impl SelfTest {
    /// Waits for the end of the test. Before that no guest may run, and the process may not be
    /// confined.
    ///
    /// # Errors
    /// As [`Host::self_test`].
    pub fn passed(self) -> Result<(), Error> {
        match self.0 {
            Ok(thread) => thread
                .join()
                .unwrap_or(Err(Error::SelfTest { step: "the test", came_to: "a panic".into() })),
            // The host refused the thread.
            Err(host) => host.self_test(),
        }
    }
}

impl Host {
    /// Starts [`self_test`](Self::self_test) on a thread.
    #[must_use]
    pub fn begin_self_test(&self) -> SelfTest {
        let host = self.clone();
        let thread = thread::Builder::new().name("self-test".into()).stack_size(STACK);
        SelfTest(thread.spawn(move || host.self_test()).map_err(|_| self.clone()))
    }

    /// Tests whether captured VMs continue on this host. It takes about as long as making a VM.
    ///
    /// # Errors
    /// [`Error::SelfTest`] if one would not; [`Error::Call`] for a call that KVM refused.
    pub fn self_test(&self) -> Result<(), Error> {
        fail_point!("kvm.self-test", else return Err(Error::SelfTest { step: "code at CPL \
            3", came_to: "an injected failure".into() }));
        let mut ram = GuestRam::new(MEMORY)?;
        fill(ram.writable())?;
        let ram = Arc::new(ram);
        let (mut vcpu, ..) = self.create(&ram)?;
        let sregs = vcpu.fd.get_sregs().map_err(failed("read the system registers"))?;
        let sregs = user_mode::sregs(sregs, ROOT, TSS, TSS_SIZE + PORT_MAP);
        vcpu.fd.set_sregs(&sregs).map_err(failed("set the system registers"))?;
        let regs = kvm_regs {
            rip: CODE,
            rdi: STEP.into(),
            rdx: PORT.into(),
            rflags: user_mode::RFLAGS,
            ..Default::default()
        };
        vcpu.fd.set_regs(&regs).map_err(failed("set the registers"))?;
        expect("code at CPL 3 that rings the doorbell", vcpu.run_to_exit()?, STEP)?;
        let captured = vcpu.capture()?;
        expect("the same code, continued", vcpu.run_to_exit()?, 2 * STEP)?;
        vcpu.apply(&captured)?;
        expect("the same code from a state that was captured", vcpu.run_to_exit()?, 2 * STEP)
    }
}

fn expect(step: &'static str, exit: Exit, value: u32) -> Result<(), Error> {
    match exit {
        Exit::PortWrite { port: PORT, size: 4, value: rung } if rung == value => Ok(()),
        other => Err(Error::SelfTest { step, came_to: format!("{other:x?}") }),
    }
}

/// Writes tables, TSS and code.
fn fill(ram: Writable<'_>) -> Result<(), Error> {
    // Present, writable, for CPL 3, accessed, dirty.
    const ENTRY: u64 = 0x67;
    for table in [ROOT, 0x2000, 0x3000] {
        ram.write(table, &((table + 0x1000) | ENTRY).to_le_bytes())?;
    }
    for page in (TSS..=CODE).step_by(PAGE) {
        ram.write(LAST_TABLE + (page >> 12) * 8, &(page | ENTRY).to_le_bytes())?;
    }
    ram.write(TSS + 102, &(TSS_SIZE as u16).to_le_bytes())?;
    ram.write(CODE, code())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kvm_that_runs_guests_passes() {
        let host = match Host::open() {
            Ok(host) => host,
            Err(e) => return vmm_lite_lab::skipped("the self-test", e),
        };
        let began = std::time::Instant::now();
        host.begin_self_test().passed().unwrap();
        eprintln!("{:?}", began.elapsed());
    }

    #[test]
    fn an_unexpected_exit_is_reported_with_its_step() {
        for exit in [
            Exit::TripleFault,
            Exit::Halted,
            Exit::PortWrite { port: PORT, size: 4, value: 1 },
            Exit::PortWrite { port: PORT, size: 2, value: STEP },
        ] {
            let said = expect("the step", exit, STEP).unwrap_err().to_string();
            assert!(said.contains("the step"), "{said}");
        }
    }
}
