//! Digests of a guest's state, in a log now and then: a divergence that shows in no exit shows
//! here.

use crate::{
    kvm::{self, Vcpu, VcpuState, xsave},
    memory::{GuestRam, PAGE, SAMPLES_RING, is_zero},
};
use migrate::input_log::Check;
use std::ops::Range;
use vmm_lite_interface::layout::PAGE_SIZE;
use xxhash_rust::xxh3::{Xxh3, xxh3_64_with_seed};

/// Pages of the part of memory that a check covers; the next check covers the next part.
const PART: usize = 256;

/// When checks are made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::vcpu) struct Checks {
    /// One at this many exits; 0: only at the end.
    pub every: u64,
    /// Of all of the memory, not of a part.
    pub whole: bool,
    exits: u64,
    next: usize,
}

impl Checks {
    pub fn new(every: u64, whole: bool) -> Self {
        Self { every, whole, exits: 0, next: 0 }
    }

    /// The pages to be looked at, at an exit: the last one, or another.
    pub fn due(&mut self, last: bool, pages: usize) -> Option<Range<usize>> {
        self.exits += 1;
        let due = self.every != 0 && self.exits.is_multiple_of(self.every);
        if !due && !last {
            return None;
        }
        if self.whole || last {
            return Some(0..pages);
        }
        let first = self.next;
        let end = (first + PART).min(pages);
        self.next = if end == pages { 0 } else { end };
        Some(first..end)
    }
}

/// The digests of a guest that stands at an exit, and its registers.
///
/// # Errors
/// KVM's error.
pub(super) fn digest(
    vcpu: &mut Vcpu,
    ram: &GuestRam,
    pages: Range<usize>,
) -> Result<(Check, VcpuState), kvm::Error> {
    let state = vcpu.capture()?;
    let registers = self::registers(&state, &xsave::canonical(&state.xsave));
    let memory = memory(ram, pages.clone());
    let check =
        Check { registers, first_page: pages.start as u64, pages: pages.len() as u64, memory };
    Ok((check, state))
}

/// Of the registers that the guest can see. KVM's own bookkeeping is not among them.
fn registers(state: &VcpuState, xsave: &[u8]) -> u64 {
    let VcpuState { regs, sregs, events: _, xcrs: _, xsave: _, msrs: _ } = state;
    let mut hasher = Xxh3::new();
    let mut word = |word: u64| hasher.update(&word.to_le_bytes());
    let general = [
        regs.rax,
        regs.rbx,
        regs.rcx,
        regs.rdx,
        regs.rsi,
        regs.rdi,
        regs.rsp,
        regs.rbp,
        regs.r8,
        regs.r9,
        regs.r10,
        regs.r11,
        regs.r12,
        regs.r13,
        regs.r14,
        regs.r15,
        regs.rip,
        regs.rflags,
    ];
    general.into_iter().for_each(&mut word);
    let bases = [sregs.fs.base, sregs.gs.base, sregs.gdt.base, sregs.idt.base, sregs.tr.base];
    bases.into_iter().for_each(&mut word);
    for segment in [sregs.cs, sregs.ss, sregs.ds, sregs.es] {
        word(segment.selector.into());
    }
    [sregs.cr0, sregs.cr2, sregs.cr3, sregs.cr4, sregs.efer].into_iter().for_each(&mut word);
    hasher.update(xsave);
    hasher.digest()
}

/// Of these pages but the ring of samples, which is not part of the state. Zero pages count for
/// nothing, so that untouched memory need not be read.
fn memory(ram: &GuestRam, pages: Range<usize>) -> u64 {
    let mut content = [0; PAGE];
    let mut digest = 0_u64;
    let mut at = pages.start;
    while let Some(range) = ram.next_touched(at, pages.end) {
        for page in range.clone().filter(|page| !SAMPLES_RING.contains(page)) {
            if ram.read_page(page, &mut content).is_ok() && !is_zero(&content) {
                digest = digest.wrapping_add(xxh3_64_with_seed(&content, page as u64));
            }
        }
        at = range.end;
    }
    digest
}

/// How two checks of one exit differ. Earlier logs have the FPU's registers as the CPU encoded
/// them.
pub(super) fn difference(recorded: &Check, (here, state): &(Check, VcpuState)) -> Option<String> {
    if recorded.memory != here.memory {
        let (first, last) = (here.first_page, here.first_page + here.pages);
        let (from, to) = (first * PAGE_SIZE, last * PAGE_SIZE);
        return Some(format!("its memory differs, between {from:#x} and {to:#x}"));
    }
    let same = recorded.registers == here.registers
        || recorded.registers == registers(state, &state.xsave);
    (!same).then(|| "its registers differ".into())
}
