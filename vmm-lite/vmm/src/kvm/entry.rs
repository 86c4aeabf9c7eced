//! The registers with which an image starts: PVH's 32-bit protected mode, without paging.

use kvm_bindings::{kvm_regs, kvm_segment, kvm_sregs};
use vmm_lite_interface::layout::START_INFO;

const CR0_PE: u64 = 1;
const CR0_ET: u64 = 1 << 4;

/// Registers for an entry at `entry`.
pub(super) fn regs(entry: u64) -> kvm_regs {
    kvm_regs { rip: entry, rbx: START_INFO, rflags: 2, ..Default::default() }
}

/// System registers for an entry, from those of a reset.
pub(super) fn sregs(mut sregs: kvm_sregs) -> kvm_sregs {
    // Read, execute and accessed; read, write and accessed; busy 32-bit TSS.
    let code = segment(0x10, 0xb);
    let data = segment(0x18, 0x3);
    let tss = kvm_segment { s: 0, g: 0, limit: 0x67, ..segment(0x20, 0xb) };
    sregs.cs = code;
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.tr = tss;
    sregs.cr0 = CR0_PE | CR0_ET;
    sregs.cr4 = 0;
    sregs.efer = 0;
    sregs
}

fn segment(selector: u16, type_: u8) -> kvm_segment {
    kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        selector,
        type_,
        present: 1,
        dpl: 0,
        db: 1,
        s: 1,
        l: 0,
        g: 1,
        avl: 0,
        unusable: 0,
        padding: 0,
    }
}
