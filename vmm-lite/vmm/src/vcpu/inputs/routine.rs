//! A guest that was stopped while it took a sample.

use crate::memory::GuestRam;
use kvm_bindings::kvm_regs;
use std::sync::atomic::Ordering::SeqCst;

/// Continues a guest that was stopped within a routine that takes a sample at its beginning, so
/// that what it does next depends neither on what was done with samples before nor on what is done
/// from now on. Returns whether it was.
pub(crate) fn leave_routine(ram: &GuestRam, regs: &mut kvm_regs) -> bool {
    for [begin, counted] in &ram.control_page().sample_routines {
        let (begin, counted) = (begin.load(SeqCst), counted.load(SeqCst));
        if begin != 0 && begin < regs.rip && regs.rip <= counted {
            regs.rip = begin;
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_sample_that_is_not_counted_is_begun_anew() {
        let ram = GuestRam::new(2 << 20).unwrap();
        let at = |rip| {
            let mut regs = kvm_regs { rip, ..Default::default() };
            let left = leave_routine(&ram, &mut regs);
            (left, regs.rip)
        };
        assert_eq!(at(0), (false, 0), "an image without such routines");
        let [first, second] = &ram.control_page().sample_routines;
        first[0].store(100, SeqCst);
        first[1].store(140, SeqCst);
        second[0].store(200, SeqCst);
        second[1].store(240, SeqCst);
        for (rip, then) in [(100, 100), (101, 100), (140, 100), (141, 141), (239, 200), (241, 241)]
        {
            assert_eq!(at(rip), (rip != then, then));
        }
    }
}
