//! What becomes of a fault: a stack grows, or the guest ends with a report.

use core::sync::atomic::Ordering::Relaxed;

use vmm_lite_interface::control::{FaultKind, FaultReport};

use crate::{
    arch::fault::{GENERAL_PROTECTION, INVALID_OPCODE, PAGE_FAULT, Record},
    image, platform, sched,
};

#[unsafe(no_mangle)]
extern "C" fn handle_fault(record: &mut Record) {
    let kind = match record.vector {
        PAGE_FAULT => {
            let address = record.address as usize;
            let (grown, guard) =
                sched::with_current_stack(|s| (s.commit(address), s.is_guard(address)));
            if grown {
                return;
            }
            if guard { FaultKind::StackOverflow } else { FaultKind::WildAccess }
        }
        GENERAL_PROTECTION => FaultKind::WildAccess,
        INVALID_OPCODE => FaultKind::IllegalInstruction,
        _ => FaultKind::Exception,
    };
    platform::fail(|report| {
        report.kind.store(kind as u32, Relaxed);
        report.vector.store(record.vector as u32, Relaxed);
        report.error_code.store(record.error_code as u32, Relaxed);
        report.address.store(record.address, Relaxed);
        report.rip.store(record.rip, Relaxed);
        report.rsp.store(record.rsp, Relaxed);
        backtrace(report, record.rsp as usize);
    })
}

/// Fills the report with what looks like return addresses on the stack from `rsp`.
pub fn backtrace(report: &FaultReport, rsp: usize) {
    let thread = sched::current();
    report.thread.store(thread as u32, Relaxed);
    let Some(text) = image::segments()
        .filter(|s| s.flags & 1 != 0)
        .map(|s| s.address..s.address + s.memory_size)
        .next()
    else {
        return;
    };
    let (committed, top) = sched::with_current_stack(|s| (s.committed, s.top));
    let mut found = 0;
    let from = rsp.max(committed) & !7;
    for at in (from..top).step_by(8) {
        // SAFETY: inside the committed part of the stack.
        let word = unsafe { *(at as *const u64) };
        if text.contains(&word) && found < report.backtrace.len() {
            report.backtrace[found].store(word, Relaxed);
            found += 1;
        }
    }
    report.backtrace_len.store(found as u32, Relaxed);
}
