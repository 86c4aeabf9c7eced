//! Faults, as the monitor hands them up.

#[cfg(target_os = "hermit")]
core::arch::global_asm!(
    include_str!("fault.s"),
    CALL = const super::monitor::CALL,
    options(att_syntax)
);

/// What the monitor wrote of a fault. Layout shared with `monitor.s`.
#[repr(C)]
#[derive(Debug)]
pub struct Record {
    /// Nonzero while a fault is handled.
    pub active: u64,
    /// RAX at the fault.
    pub rax: u64,
    /// Exception vector.
    pub vector: u64,
    /// Error code, 0 where the vector has none.
    pub error_code: u64,
    /// CR2.
    pub address: u64,
    /// Instruction that faulted.
    pub rip: u64,
    /// Flags.
    pub rflags: u64,
    /// Stack pointer.
    pub rsp: u64,
}

/// Page fault.
pub const PAGE_FAULT: u64 = 14;
/// Invalid opcode.
pub const INVALID_OPCODE: u64 = 6;
/// Stack segment: a non-canonical address, by way of RSP or RBP.
pub const STACK_SEGMENT: u64 = 12;
/// General protection.
pub const GENERAL_PROTECTION: u64 = 13;
/// In the error code of a page fault: the page is there, and the access was not allowed.
pub const PRESENT: u64 = 1;
