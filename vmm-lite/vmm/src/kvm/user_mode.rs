//! Registers for 64-bit code at CPL 3 that the VMM itself runs.

use kvm_bindings::{kvm_dtable, kvm_segment, kvm_sregs};

/// Paging, write protection, native FPU errors, and protected mode, as the kernel's monitor sets
/// them.
const CR0: u64 = 0x8001_0033;
/// PAE, OSFXSR, OSXMMEXCPT, FSGSBASE, OSXSAVE.
const CR4: u64 = 1 << 5 | 1 << 9 | 1 << 10 | 1 << 16 | 1 << 18;
/// Long mode, active, and no-execute pages.
const EFER: u64 = 1 << 8 | 1 << 10 | 1 << 11;

/// The flags with which guests run at CPL 3. With IOPL 3, `out` does not consult the I/O bitmap of
/// the TSS. A KVM without hardware virtualization ignores IOPL and consults it; some emulated CPUs
/// reject a TSS that is marked busy, as that of a running CPU is.
pub(super) const RFLAGS: u64 = 3 << 12 | 2;

/// System registers for code that runs with the tables at `root` and has the TSS at `tss` of
/// `tss_size` bytes. It has no fault handlers: a fault ends the run with
/// [`Exit::TripleFault`](super::Exit::TripleFault).
pub(super) fn sregs(mut sregs: kvm_sregs, root: u64, tss: u64, tss_size: u32) -> kvm_sregs {
    let code = kvm_segment {
        limit: 0xffff_ffff,
        selector: 0x33,
        type_: 0xb,
        present: 1,
        dpl: 3,
        s: 1,
        l: 1,
        g: 1,
        ..Default::default()
    };
    let data = kvm_segment { selector: 0x2b, type_: 0x3, db: 1, l: 0, ..code };
    sregs.cs = code;
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.tr = kvm_segment {
        base: tss,
        limit: tss_size - 1,
        selector: 0x40,
        type_: 0xb,
        present: 1,
        ..Default::default()
    };
    sregs.idt = kvm_dtable::default();
    (sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer) = (CR0, root, CR4, EFER);
    sregs
}
