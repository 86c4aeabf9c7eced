//! Where a guest goes by its next instruction.

use crate::{
    kvm::VcpuState,
    memory::{GuestRam, Tables},
};
use iced_x86::{Code, Decoder, DecoderOptions, FlowControl, Instruction, OpKind, Register};

/// Bytes of the longest instruction.
const LONGEST: usize = 15;
/// Bytes of a gate.
const GATE: u64 = 16;
/// The page fault's vector.
const PAGE_FAULT: u64 = 14;

/// The addresses at which the instruction that comes next may continue, but its own. None, if it is
/// none.
pub(super) fn successors(ram: &GuestRam, state: &VcpuState) -> Vec<u64> {
    let mut memory = Memory { ram, tables: Tables::new(state.sregs.cr3), state };
    let Some(instruction) = memory.instruction(state.regs.rip) else { return Vec::new() };
    let next = Some(instruction.next_ip());
    let target = || match instruction.op0_kind() {
        OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64 => {
            Some(instruction.near_branch_target())
        }
        _ => None,
    };
    let found = match instruction.flow_control() {
        // Calls of the monitor return behind it.
        FlowControl::Next | FlowControl::Interrupt => [next, None],
        FlowControl::UnconditionalBranch | FlowControl::Call => [target(), far(&instruction)],
        FlowControl::ConditionalBranch => [next, target()],
        FlowControl::IndirectBranch | FlowControl::IndirectCall => {
            [memory.operand(&instruction), None]
        }
        FlowControl::Return if instruction.code() == Code::Sysretq => [Some(state.regs.rcx), None],
        FlowControl::Return => [memory.word(state.regs.rsp), None],
        FlowControl::Exception | FlowControl::XbeginXabortXend => [None, None],
    };
    found.into_iter().flatten().filter(|address| *address != state.regs.rip).collect()
}

fn far(instruction: &Instruction) -> Option<u64> {
    matches!(instruction.op0_kind(), OpKind::FarBranch16 | OpKind::FarBranch32)
        .then(|| instruction.far_branch32().into())
}

/// Where a fault of a page takes the guest, if it has a handler.
pub(super) fn fault_handler(ram: &GuestRam, state: &VcpuState) -> Option<u64> {
    let idt = state.sregs.idt;
    if u64::from(idt.limit) < (PAGE_FAULT + 1) * GATE - 1 {
        return None;
    }
    let mut memory = Memory { ram, tables: Tables::new(state.sregs.cr3), state };
    let at = idt.base.checked_add(PAGE_FAULT * GATE)?;
    let (low, high) = (memory.word(at)?, memory.word(at + 8)?);
    let present = low & 1 << 47 != 0;
    present.then_some(low & 0xffff | low >> 32 & 0xffff_0000 | high << 32)
}

struct Memory<'r> {
    ram: &'r GuestRam,
    tables: Tables,
    state: &'r VcpuState,
}

impl Memory<'_> {
    fn instruction(&mut self, rip: u64) -> Option<Instruction> {
        let mut bytes = [0; LONGEST];
        let n = self.tables.read(self.ram, self.state.paged(), rip, &mut bytes);
        let bits = if self.state.sregs.cs.l == 1 { 64 } else { 32 };
        let instruction = Decoder::with_ip(bits, &bytes[..n], rip, DecoderOptions::NONE).decode();
        (!instruction.is_invalid()).then_some(instruction)
    }

    fn word(&mut self, address: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        let n = self.tables.read(self.ram, self.state.paged(), address, &mut bytes);
        (n == bytes.len()).then_some(u64::from_le_bytes(bytes))
    }

    /// The target of an indirect branch.
    fn operand(&mut self, instruction: &Instruction) -> Option<u64> {
        match instruction.op0_kind() {
            OpKind::Register => self.register(instruction.op0_register()),
            OpKind::Memory => {
                let value = |register, _, _| self.register(register);
                let address = instruction.virtual_address(0, 0, value)?;
                self.word(address)
            }
            _ => None,
        }
    }

    fn register(&self, register: Register) -> Option<u64> {
        let VcpuState { regs, sregs, .. } = self.state;
        Some(match register {
            Register::RAX => regs.rax,
            Register::RBX => regs.rbx,
            Register::RCX => regs.rcx,
            Register::RDX => regs.rdx,
            Register::RSI => regs.rsi,
            Register::RDI => regs.rdi,
            Register::RSP => regs.rsp,
            Register::RBP => regs.rbp,
            Register::R8 => regs.r8,
            Register::R9 => regs.r9,
            Register::R10 => regs.r10,
            Register::R11 => regs.r11,
            Register::R12 => regs.r12,
            Register::R13 => regs.r13,
            Register::R14 => regs.r14,
            Register::R15 => regs.r15,
            Register::FS => sregs.fs.base,
            Register::GS => sregs.gs.base,
            Register::CS | Register::DS | Register::ES | Register::SS => 0,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(code: &[u8], set: impl FnOnce(&mut VcpuState)) -> Vec<u64> {
        let ram = GuestRam::new(2 << 20).unwrap();
        let memory = ram.writable_while_stopped();
        memory.write(0x1000, code).unwrap();
        memory.write(0x3008, &0x1_2340_u64.to_le_bytes()).unwrap();
        let mut state = VcpuState::default();
        (state.regs.rip, state.regs.rsp, state.sregs.cs.l) = (0x1000, 0x3008, 1);
        set(&mut state);
        successors(&ram, &state)
    }

    #[test]
    fn each_kind_of_instruction_goes_on_where_the_cpu_does() {
        assert_eq!(at(&[0x55], |_| ()), [0x1001], "push");
        assert_eq!(at(&[0xcc], |_| ()), [0x1001], "a call of the monitor");
        assert_eq!(at(&[0xeb, 0x10], |_| ()), [0x1012], "jmp");
        assert_eq!(at(&[0x75, 0x10], |_| ()), [0x1002, 0x1012], "jne");
        assert_eq!(at(&[0x75, 0xfe], |_| ()), [0x1002], "jne to itself");
        assert_eq!(at(&[0xe8, 0, 1, 0, 0], |_| ()), [0x1105], "call");
        assert_eq!(at(&[0xc3], |_| ()), [0x1_2340], "ret");
        assert_eq!(at(&[0xff, 0xe0], |s| s.regs.rax = 77), [77], "jmp *%rax");
        assert_eq!(at(&[0xff, 0x50, 0x08], |s| s.regs.rax = 0x3000), [0x1_2340], "call *8(%rax)");
        assert_eq!(at(&[0xf3, 0xa4], |_| ()), [0x1002], "rep movsb, as one");
        assert_eq!(at(&[0x0f, 0x0b], |_| ()), [0_u64; 0], "ud2");
        assert_eq!(at(&[0x06], |_| ()), [0_u64; 0], "no instruction");
    }
}
