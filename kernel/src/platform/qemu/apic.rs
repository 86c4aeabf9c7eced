//! The local APIC's timer, and device interrupts by way of the IOAPIC. All they do is end a halt.

use core::ptr;

/// Registers of the local APIC.
pub const LOCAL_BASE: usize = 0xfee0_0000;
/// Registers of the IOAPIC.
pub const IO_BASE: usize = 0xfec0_0000;

// Of the local APIC.
const TASK_PRIORITY: usize = 0x80;
const END_OF_INTERRUPT: usize = 0xb0;
const SPURIOUS: usize = 0xf0;
const LVT_TIMER: usize = 0x320;
const INITIAL_COUNT: usize = 0x380;
const CURRENT_COUNT: usize = 0x390;
const DIVIDE: usize = 0x3e0;

const ENABLE: u32 = 1 << 8;
const MASKED: u32 = 1 << 16;
const DIVIDE_BY_1: u32 = 0b1011;

// Of one priority class, so that one at most is being served.
const TIMER_VECTOR: u32 = 0x40;
const DEVICE_VECTOR: u32 = 0x41;
const SPURIOUS_VECTOR: u32 = 0x4f;

/// The timer counts nanoseconds, in QEMU and in KVM alike.
pub const TIMER_HZ: u64 = 1_000_000_000;

fn local(register: usize) -> *mut u32 {
    ptr::with_exposed_provenance_mut(LOCAL_BASE + register)
}

fn read(register: usize) -> u32 {
    // SAFETY: the registers are mapped; none that is read here touches memory.
    unsafe { local(register).read_volatile() }
}

fn write(register: usize, value: u32) {
    // SAFETY: likewise. The vectors that are set have a gate.
    unsafe { local(register).write_volatile(value) }
}

fn io_write(register: u32, value: u32) {
    let select = ptr::with_exposed_provenance_mut::<u32>(IO_BASE);
    // SAFETY: the registers are mapped: selection at 0, window at 16 bytes.
    unsafe {
        select.write_volatile(register);
        select.byte_add(16).write_volatile(value);
    }
}

/// Lets the timer and all devices interrupt.
pub fn init() {
    write(SPURIOUS, ENABLE | SPURIOUS_VECTOR);
    write(TASK_PRIORITY, 0);
    write(DIVIDE, DIVIDE_BY_1);
    write(LVT_TIMER, TIMER_VECTOR);
    // Edge triggered: what is not served does not interrupt again and again.
    for pin in 0..24 {
        io_write(0x10 + 2 * pin + 1, 0);
        io_write(0x10 + 2 * pin, DEVICE_VECTOR);
    }
}

/// Has the timer interrupt once, in `ns`, or earlier if that is far away.
pub fn start_timer(ns: u64) {
    write(INITIAL_COUNT, u32::try_from(ns).unwrap_or(u32::MAX).max(1));
}

/// Has it not interrupt.
pub fn stop_timer() {
    write(INITIAL_COUNT, 0);
}

/// Has it count down from the most, without an interrupt; returns what it stands at.
pub fn start_count() -> u32 {
    write(LVT_TIMER, TIMER_VECTOR | MASKED);
    write(INITIAL_COUNT, u32::MAX);
    count()
}

/// What it stands at.
pub fn count() -> u32 {
    read(CURRENT_COUNT)
}

/// The end of [`start_count`].
pub fn stop_count() {
    write(INITIAL_COUNT, 0);
    write(LVT_TIMER, TIMER_VECTOR);
}

/// An interrupt has been served.
pub fn end_of_interrupt() {
    write(END_OF_INTERRUPT, 0);
}
