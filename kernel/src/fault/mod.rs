//! Faults and panics: a stack grows, or the guest ends with a report.
//!
//! The monitor and the assembly in `arch` enter here by the symbol `handle_fault`, so that nothing
//! below depends on what a fault does.

mod panic;

use core::{arch::asm, sync::atomic::Ordering::Relaxed};

use vmm_lite_interface::control::{FaultKind, FaultReport};

use crate::{
    arch::fault::{GENERAL_PROTECTION, INVALID_OPCODE, PAGE_FAULT, PRESENT, Record, STACK_SEGMENT},
    image, platform, sched,
};

/// The handler that the monitor enters, on a stack of its own. Returns to continue at the fault.
#[unsafe(no_mangle)]
extern "C" fn handle_fault(record: &Record, frame: usize) {
    let kind = match record.vector {
        PAGE_FAULT => {
            let address = record.address as usize;
            let absent = record.error_code & PRESENT == 0;
            match sched::current_stack() {
                Some(stack) if absent && stack.commit(address) => return,
                Some(stack) if stack.holds(address) => FaultKind::StackOverflow,
                _ => FaultKind::WildAccess,
            }
        }
        // A non-canonical address, or a port or an instruction that CPL 3 may not use.
        GENERAL_PROTECTION | STACK_SEGMENT => match image::instruction_at(record.rip) {
            Some(byte) if PRIVILEGED.contains(&byte) => FaultKind::IllegalInstruction,
            _ => FaultKind::WildAccess,
        },
        INVALID_OPCODE => FaultKind::IllegalInstruction,
        _ => FaultKind::Exception,
    };
    platform::fail(|report| {
        report.kind.store(kind as u32, Relaxed);
        report.vector.store(record.vector as u32, Relaxed);
        report.error_code.store(record.error_code as u32, Relaxed);
        let address = if record.vector == PAGE_FAULT { record.address } else { 0 };
        report.address.store(address, Relaxed);
        report.rip.store(record.rip, Relaxed);
        report.rsp.store(record.rsp, Relaxed);
        report.thread.store(sched::current_id(), Relaxed);
        trace(report, record.rsp as usize, frame);
    })
}

/// First bytes of instructions that only CPL 0 may execute: `in`, `out`, `hlt`, `cli`, `sti`.
const PRIVILEGED: [u8; 15] =
    [0x6c, 0x6d, 0x6e, 0x6f, 0xe4, 0xe5, 0xe6, 0xe7, 0xec, 0xed, 0xee, 0xef, 0xf4, 0xfa, 0xfb];

/// Ends the guest for a reason other than a CPU exception. The backtrace starts at the caller.
pub fn end(kind: FaultKind) -> ! {
    let (rsp, frame): (usize, usize);
    // SAFETY: reads two registers.
    unsafe {
        asm!("mov {}, rsp", "mov {}, rbp", out(reg) rsp, out(reg) frame, options(nomem, nostack))
    };
    platform::fail(|report| {
        report.kind.store(kind as u32, Relaxed);
        report.rsp.store(rsp as u64, Relaxed);
        report.thread.store(sched::current_id(), Relaxed);
        trace(report, rsp, frame);
        // The innermost address that was found is in the caller.
        report.rip.store(report.backtrace[0].load(Relaxed), Relaxed);
    })
}

/// Fills in the backtrace: by frame pointers, or where there are none by what looks like return
/// addresses on the stack.
fn trace(report: &FaultReport, rsp: usize, frame: usize) {
    let Some(stack) = sched::current_stack() else { return };
    let (low, high) = (stack.committed().max(rsp & !7), stack.top());
    let word = |at: usize| -> Option<u64> {
        let readable = (low..high - 7).contains(&at) && at.is_multiple_of(8);
        // SAFETY: inside the committed part of the stack.
        readable.then(|| unsafe { core::ptr::with_exposed_provenance::<u64>(at).read() })
    };
    let mut found = 0;
    let mut note = |address: u64| {
        if found < report.backtrace.len() && image::is_text(address) {
            report.backtrace[found].store(address, Relaxed);
            found += 1;
            report.backtrace_len.store(found as u32, Relaxed);
        }
    };
    let mut frame = frame;
    let mut frames = 0;
    while let (Some(next), Some(address)) = (word(frame), word(frame.wrapping_add(8))) {
        if !image::is_text(address) {
            break;
        }
        note(address);
        frames += 1;
        // Callers' frames lie higher.
        if next as usize <= frame {
            break;
        }
        frame = next as usize;
    }
    if frames == 0 {
        (low..high).step_by(8).filter_map(word).for_each(note);
    }
}
