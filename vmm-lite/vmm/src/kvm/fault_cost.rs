//! Measures in a VM made for the purpose what it costs a guest on this host when KVM's second-level
//! tables lack a page.
//!
//! The VM's code touches one page after the other at CPL 3, through tables of 4 KiB pages as a
//! guest has them for its program. It first does so in memory that is new to KVM, and then again;
//! the difference is the cost of the faults. In total this takes a few milliseconds, which a
//! process that waits for a VM can spare.

use super::{Error, Exit, Faults, Host, Vcpu, failed, user_mode};
use crate::host::this_thread;
use crate::{
    host::cpu_time,
    memory::{GuestRam, PAGE, Writable},
};
use kvm_bindings::kvm_regs;
use std::{arch::global_asm, sync::Arc, time::Duration};
use vmm_lite_interface::doorbell::PORT;

const MEMORY: u64 = 4 << 20;
const ROOT: u64 = 0x1000;
/// The last-level tables, contiguous, which map all of the memory.
const LAST_TABLES: u64 = 0x4000;
/// The TSS, followed by an I/O bitmap that allows all ports.
const TSS: u64 = 0x6000;
const TSS_SIZE: u32 = 104;
const PORT_MAP: u32 = 8192 + 1;
const CODE: u64 = 0xa000;
/// Each stride is measured this many times, and the median counts: other processes may have
/// disturbed some.
const TIMES: u64 = 5;
const SIZE: u64 = PAGE as u64;

/// An order in which memory is touched.
struct Way {
    /// The first page.
    from: u64,
    /// The distance from one touched page to the next.
    stride: u64,
    /// How many are touched at a time.
    pages: u64,
}

/// Adjacent pages, which KVM may fill in together.
const IN_A_ROW: Way = Way { from: 256, stride: 1, pages: 48 };
/// Isolated pages: those between have never been accessed, so KVM does not fill them in.
const ALONE: Way = Way { from: 512, stride: 8, pages: 12 };

global_asm!(
    ".pushsection .rodata.vmm_lite_touch, \"a\"",
    ".global vmm_lite_touch, vmm_lite_touch_end",
    "vmm_lite_touch:",
    "2: lock or byte ptr [rdi], 0",
    "add rdi, rsi",
    "dec rcx",
    "jnz 2b",
    "out dx, eax",
    "vmm_lite_touch_end:",
    ".popsection",
);

fn code() -> &'static [u8] {
    unsafe extern "C" {
        static vmm_lite_touch: u8;
        static vmm_lite_touch_end: u8;
    }
    let (start, end) = (&raw const vmm_lite_touch, &raw const vmm_lite_touch_end);
    // SAFETY: both symbols are defined right above, the second behind the first in one section of
    // constants.
    unsafe { std::slice::from_raw_parts(start, end.offset_from_unsigned(start)) }
}

/// How long the guest is stopped by a missing page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FaultCost {
    /// For each fault.
    pub fault: Duration,
    /// For each page that KVM then fills in, in addition.
    pub page: Duration,
}

impl FaultCost {
    /// The total time for these faults.
    #[must_use]
    pub fn of(&self, faults: Faults) -> Duration {
        let times =
            |one: Duration, n: u64| one.saturating_mul(u32::try_from(n).unwrap_or(u32::MAX));
        times(self.fault, faults.count).saturating_add(times(self.page, faults.pages))
    }
}

impl Host {
    /// Measures the cost of faults where the host itself has the pages.
    ///
    /// # Errors
    /// [`Error::Lacks`] where KVM does not count such faults; the errors of making a VM.
    pub fn fault_cost(&self) -> Result<FaultCost, Error> {
        let mut ram = GuestRam::new(MEMORY)?;
        fill(ram.writable())?;
        let ram = Arc::new(ram);
        let (mut vcpu, ..) = self.create(&ram)?;
        let lacks = || Error::Lacks("a count of page faults in its statistics");
        let counts = vcpu.page_faults().ok_or_else(lacks)?;
        let mut tried = |way: &Way| {
            let (mut tries, mut without) = (Vec::new(), Duration::MAX);
            for n in 0..TIMES {
                let before = counts.read()?;
                let first = touch(&mut vcpu, way, n)?;
                tries.push((first, counts.read()?.since(before)));
                without = without.min(touch(&mut vcpu, way, n)?);
            }
            tries.sort_by_key(|(time, _)| *time);
            let (time, faults) = tries[tries.len() / 2];
            Ok::<_, Error>((time.saturating_sub(without).as_nanos() as f64, faults))
        };
        let (alone, row) = (tried(&ALONE)?, tried(&IN_A_ROW)?);
        solve(alone, row).ok_or_else(lacks)
    }
}

/// Computes both costs from two measurements, each of a number of faults and of filled-in pages.
fn solve((a, one): (f64, Faults), (b, other): (f64, Faults)) -> Option<FaultCost> {
    let [ac, ap, bc, bp] = [one.count, one.pages, other.count, other.pages].map(|n| n as f64);
    let together = |n: f64| Duration::try_from_secs_f64(n * 1e-9).ok();
    if ac == 0.0 || bc == 0.0 {
        return None;
    }
    // Where KVM fills in one page at a time, or because of noise: the fault gets all of the cost.
    let page = ((b * ac - a * bc) / (bp * ac - ap * bc)).clamp(0.0, a / ac.max(ap));
    let page = if page.is_finite() { page } else { 0.0 };
    Some(FaultCost { fault: together((a - page * ap) / ac)?, page: together(page)? })
}

/// Writes tables, TSS and code, and a value to each page, so that the host allocates it.
fn fill(ram: Writable<'_>) -> Result<(), Error> {
    // Present, writable, user (CPL 3), dirty.
    const ENTRY: u64 = 0x47;
    const ACCESSED: u64 = 0x20;
    for table in (ROOT..LAST_TABLES).step_by(PAGE) {
        ram.write(table, &((table + SIZE) | ENTRY | ACCESSED).to_le_bytes())?;
    }
    ram.write(LAST_TABLES - SIZE + 8, &((LAST_TABLES + SIZE) | ENTRY | ACCESSED).to_le_bytes())?;
    for page in 0..MEMORY / SIZE {
        let alone = page >= ALONE.from && page % ALONE.stride != 0;
        let accessed = if alone { 0 } else { ACCESSED };
        ram.write(LAST_TABLES + page * 8, &((page * SIZE) | ENTRY | accessed).to_le_bytes())?;
    }
    ram.write(TSS + 102, &(TSS_SIZE as u16).to_le_bytes())?;
    ram.write(CODE, code())?;
    for page in IN_A_ROW.from..MEMORY / SIZE {
        ram.write(page * SIZE, &[1])?;
    }
    Ok(())
}

/// Has the VM touch pages, for each `n` new ones; returns the CPU time that it took.
fn touch(vcpu: &mut Vcpu, way: &Way, n: u64) -> Result<Duration, Error> {
    let sregs = vcpu.fd.get_sregs().map_err(failed("read the system registers"))?;
    let sregs = user_mode::sregs(sregs, ROOT, TSS, TSS_SIZE + PORT_MAP);
    vcpu.fd.set_sregs(&sregs).map_err(failed("set the system registers"))?;
    let regs = kvm_regs {
        rip: CODE,
        rdi: (way.from + n * way.pages * way.stride) * SIZE,
        rsi: way.stride * SIZE,
        rcx: way.pages,
        rdx: PORT.into(),
        rflags: user_mode::RFLAGS,
        ..Default::default()
    };
    vcpu.fd.set_regs(&regs).map_err(failed("set the registers"))?;
    let age = || {
        let failed = |source| Error::Call { doing: "be timed", source };
        cpu_time::of(this_thread()).map_err(failed)
    };
    let began = age()?;
    let exit = vcpu.run_to_exit()?;
    let took = age()?.saturating_sub(began);
    match exit {
        Exit::PortWrite { port: PORT, .. } => Ok(took),
        other => Err(Error::Tried(format!("{other:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_costs_more_than_nothing() {
        let host = match Host::open() {
            Ok(host) => host,
            Err(e) => return vmm_lite_lab::skipped("what a fault costs", e),
        };
        let began = std::time::Instant::now();
        let costs: Vec<_> = (0..5).map(|_| host.fault_cost()).collect();
        eprintln!("{costs:?} in {:?}", began.elapsed());
        // It takes some microseconds, and more on a busy host; sometimes noise hides it.
        for cost in &costs {
            match cost {
                Ok(cost) => assert!(cost.fault < Duration::from_secs(1), "{costs:?}"),
                Err(e) => assert!(matches!(e, Error::Lacks(_)), "{e}"),
            }
        }
        let known: Vec<_> = costs.iter().flatten().collect();
        assert!(known.is_empty() || known.iter().any(|c| c.fault > Duration::ZERO), "{costs:?}");
    }

    #[test]
    fn both_costs_are_computed_from_two_times() {
        let faults = |count, pages| Faults { count, pages };
        let us = Duration::from_micros;
        let cost = |fault, page| Some(FaultCost { fault: us(fault), page: us(page) });
        assert_eq!(solve((100e3, faults(10, 10)), (240e3, faults(10, 80))), cost(8, 2));
        assert_eq!(solve((100e3, faults(10, 10)), (100e3, faults(10, 10))), cost(10, 0));
        assert_eq!(solve((100e3, faults(10, 10)), (50e3, faults(10, 80))), cost(10, 0));
        assert_eq!(solve((100e3, faults(0, 0)), (50e3, faults(10, 80))), None);
    }
}
