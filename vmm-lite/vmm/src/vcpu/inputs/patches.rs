//! Breakpoints in a guest's code.
//!
//! KVM without hardware virtualization stops a guest at CPL 3 neither by debug registers nor by
//! `int3` nor by the trap flag. What makes every KVM exit is `out`. So the first byte of an
//! instruction becomes that of `out %al, $port`, the port being the byte that follows, and the
//! permission map of the guest's TSS opens those ports. Both are undone at every exit: nobody but
//! the guest ever sees them, and it only if it reads its own code.

use crate::{
    kvm::Exit,
    memory::{self, GuestRam},
};
use kvm_bindings::kvm_sregs;

/// `out %al, $imm8`.
const OUT: u8 = 0xe6;
/// Bytes of that instruction.
const OUT_LEN: u64 = 2;
/// Bytes of the permission map for the ports of `out %al, $imm8`.
const MAP: usize = 32;
/// Where a 64-bit TSS has the offset of its permission map.
const MAP_AT: u64 = 0x66;

/// What is written into a guest's memory while it runs.
#[derive(Debug, Default)]
pub(super) struct Patches {
    /// Addresses, and what was there.
    code: Vec<(u64, u8)>,
    /// The same for the permission map.
    map: Option<(u64, [u8; MAP])>,
}

impl Patches {
    /// Makes the guest exit before the instructions at these addresses, which are physical ones.
    pub fn put(
        &mut self,
        ram: &GuestRam,
        sregs: &kvm_sregs,
        addresses: impl IntoIterator<Item = u64>,
    ) -> Result<(), memory::Error> {
        let memory = ram.writable_while_stopped();
        for address in addresses {
            let mut byte = [0];
            ram.read(address, &mut byte)?;
            if !self.has(address) {
                self.code.push((address, byte[0]));
                memory.write(address, &[OUT])?;
            }
        }
        let tss = sregs.tr.base;
        if self.code.is_empty() || tss == 0 {
            return Ok(());
        }
        let mut offset = [0; 2];
        ram.read(tss + MAP_AT, &mut offset)?;
        let at = tss + u64::from(u16::from_le_bytes(offset));
        let mut map = [0; MAP];
        ram.read(at, &mut map)?;
        self.map = Some((at, map));
        memory.write(at, &[0; MAP])
    }

    /// Whether the guest exits before the instruction at `address`.
    pub fn has(&self, address: u64) -> bool {
        self.code.iter().any(|(patched, _)| *patched == address)
    }

    /// Whether there are any.
    pub fn is_empty(&self) -> bool {
        self.code.is_empty()
    }

    /// Undoes them. Returns what was undone, for a look at the exit.
    pub fn take(&mut self, ram: &GuestRam) -> Result<Self, memory::Error> {
        let taken = std::mem::take(self);
        let memory = ram.writable_while_stopped();
        for (address, byte) in &taken.code {
            memory.write(*address, &[*byte])?;
        }
        if let Some((at, map)) = &taken.map {
            memory.write(*at, map)?;
        }
        Ok(taken)
    }

    /// The patched instruction for which the guest, which goes on at `next`, has exited.
    pub fn hit(&self, next: u64) -> Option<u64> {
        let address = next.wrapping_sub(OUT_LEN);
        self.has(address).then_some(address)
    }
}

/// Whether an exit could be for a patched instruction.
pub(super) fn may_be_hit(exit: &Exit) -> bool {
    matches!(exit, Exit::PortWrite { port: 0..=0xff, size: 1, .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_leave_nothing_behind() {
        let ram = GuestRam::new(2 << 20).unwrap();
        let memory = ram.writable_while_stopped();
        memory.write(0x1000, &[0x55, 0x48]).unwrap();
        memory.write(0x2066, &104_u16.to_le_bytes()).unwrap();
        memory.write(0x2000 + 104, &[0xff; MAP]).unwrap();
        let mut sregs = kvm_sregs::default();
        sregs.tr.base = 0x2000;
        let mut patches = Patches::default();
        patches.put(&ram, &sregs, [0x1000, 0x1000]).unwrap();
        let mut there = [0; 2];
        ram.read(0x1000, &mut there).unwrap();
        assert_eq!(there, [OUT, 0x48]);
        let mut map = [1; MAP];
        ram.read(0x2000 + 104, &mut map).unwrap();
        assert_eq!(map, [0; MAP]);
        let taken = patches.take(&ram).unwrap();
        assert_eq!((taken.hit(0x1002), taken.hit(0x1000)), (Some(0x1000), None));
        assert!(patches.is_empty() && patches.take(&ram).unwrap().is_empty());
        ram.read(0x1000, &mut there).unwrap();
        ram.read(0x2000 + 104, &mut map).unwrap();
        assert_eq!((there, map), ([0x55, 0x48], [0xff; MAP]));
        assert!(patches.put(&ram, &sregs, [2 << 20]).is_err());
    }
}
