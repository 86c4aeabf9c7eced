//! A vCPU's registers, as gdb wants them.

use crate::kvm::VcpuState;
use gdbstub_arch::x86::reg::{X86_64CoreRegs, X86SegmentRegs, X87FpuInternalRegs};

/// The registers. Of those that an XSAVE area has, x87 and SSE.
pub(super) fn of(state: &VcpuState) -> X86_64CoreRegs {
    let VcpuState { regs, sregs, xsave, .. } = state;
    let general = [
        regs.rax, regs.rbx, regs.rcx, regs.rdx, regs.rsi, regs.rdi, regs.rbp, regs.rsp, regs.r8,
        regs.r9, regs.r10, regs.r11, regs.r12, regs.r13, regs.r14, regs.r15,
    ];
    let selectors = X86SegmentRegs {
        cs: sregs.cs.selector.into(),
        ss: sregs.ss.selector.into(),
        ds: sregs.ds.selector.into(),
        es: sregs.es.selector.into(),
        fs: sregs.fs.selector.into(),
        gs: sregs.gs.selector.into(),
    };
    let area = Area(xsave);
    X86_64CoreRegs {
        regs: general,
        eflags: regs.rflags as u32,
        rip: regs.rip,
        segments: selectors,
        st: std::array::from_fn(|n| area.bytes(32 + 16 * n)),
        fpu: area.x87(),
        xmm: std::array::from_fn(|n| u128::from_le_bytes(area.bytes(160 + 16 * n))),
        mxcsr: u32::from_le_bytes(area.bytes(24)),
    }
}

/// An XSAVE area without the zeros at its end.
struct Area<'s>(&'s [u8]);

impl Area<'_> {
    fn bytes<const N: usize>(&self, at: usize) -> [u8; N] {
        std::array::from_fn(|n| self.0.get(at + n).copied().unwrap_or(0))
    }

    fn word(&self, at: usize) -> u32 {
        u16::from_le_bytes(self.bytes(at)).into()
    }

    fn x87(&self) -> X87FpuInternalRegs {
        // A bit for each register that is in use; gdb wants two, of which 11 is an empty one.
        let used = self.word(4);
        let tags = (0..8).map(|n| if used >> n & 1 == 1 { 0 } else { 3 << (2 * n) });
        X87FpuInternalRegs {
            fctrl: self.word(0),
            fstat: self.word(2),
            ftag: tags.sum(),
            fiseg: self.word(12),
            fioff: u32::from_le_bytes(self.bytes(8)),
            foseg: self.word(20),
            fooff: u32::from_le_bytes(self.bytes(16)),
            fop: self.word(6),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_come_from_where_the_cpu_keeps_them() {
        let mut state = VcpuState::default();
        (state.regs.rbp, state.regs.rsp, state.regs.rip) = (6, 7, 0x10_0000);
        state.sregs.cs.selector = 0x33;
        state.xsave = vec![0; 177];
        (state.xsave[0], state.xsave[4], state.xsave[24]) = (0x7f, 1, 0x80);
        (state.xsave[32], state.xsave[160], state.xsave[176]) = (1, 2, 3);
        let registers = of(&state);
        assert_eq!((registers.regs[6], registers.regs[7], registers.rip), (6, 7, 0x10_0000));
        assert_eq!((registers.segments.cs, registers.fpu.fctrl), (0x33, 0x7f));
        assert_eq!((registers.fpu.ftag, registers.mxcsr), (0xfffc, 0x80));
        assert_eq!((registers.st[0][0], registers.xmm[0], registers.xmm[1]), (1, 2, 3));
        assert_eq!(registers.xmm[15], 0, "beyond what was kept");
    }
}
