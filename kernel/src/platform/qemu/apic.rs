//! LAPIC and IOAPIC, as far as a guest needs them that only waits for interrupts and runs no
//! handler.
//!
//! Interrupts stay off at CPL 3. What arrives stays pending in the LAPIC until the vCPU halts;
//! which it was is read back afterwards, so that no handler has to record it and only the device
//! that called is served.

use core::ptr;

/// Registers of the local APIC.
pub const LOCAL_BASE: usize = 0xfee0_0000;
/// Registers of the IOAPIC.
pub const IO_BASE: usize = 0xfec0_0000;

// Of the local APIC.
const TASK_PRIORITY: usize = 0x80;
const END_OF_INTERRUPT: usize = 0xb0;
const SPURIOUS: usize = 0xf0;
/// Bitmap of what is being served: the word that holds our vectors.
const IN_SERVICE: usize = 0x120;
/// Bitmap of what is pending: likewise.
const REQUESTED: usize = 0x220;
const LVT_TIMER: usize = 0x320;
const INITIAL_COUNT: usize = 0x380;
const CURRENT_COUNT: usize = 0x390;
const DIVIDE: usize = 0x3e0;

const ENABLE: u32 = 1 << 8;
const MASKED: u32 = 1 << 16;
const DIVIDE_BY_1: u32 = 0b1011;

/// The first of 16 vectors for which the monitor has gates. They are of one priority class, so that
/// one at most is being served.
const FIRST_VECTOR: u32 = 0x40;
// Lines beside those of the IOAPIC's inputs 1 to 14.
const TIMER: u32 = 0;
const NOTHING: u32 = 15;

/// The timer counts nanoseconds, in QEMU and in KVM alike.
pub const TIMER_HZ: u64 = 1_000_000_000;

/// A set of interrupt lines.
#[derive(Clone, Copy, Debug)]
pub struct Lines(u32);

impl Lines {
    /// All of them.
    pub const ALL: Self = Self(0xffff);

    /// Whether input `pin` of the IOAPIC is among them.
    pub fn has(self, pin: u8) -> bool {
        self.0 & 1 << pin != 0
    }
}

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

/// Lets the timer interrupt; it is stopped.
pub fn init() {
    write(SPURIOUS, ENABLE | (FIRST_VECTOR + NOTHING));
    write(TASK_PRIORITY, 0);
    write(DIVIDE, DIVIDE_BY_1);
    write(LVT_TIMER, FIRST_VECTOR + TIMER);
}

/// Lets the device at input `pin` (1 to 14) of the IOAPIC interrupt, by the edge: a device that is
/// not served does not interrupt again and again.
pub fn connect(pin: u8) {
    let entry = 0x10 + 2 * u32::from(pin);
    io_write(entry + 1, 0);
    io_write(entry, FIRST_VECTOR + u32::from(pin));
}

/// Has the timer interrupt once, in `ns`, or earlier if that is far away.
pub fn start_timer(ns: u64) {
    write(INITIAL_COUNT, u32::try_from(ns).unwrap_or(u32::MAX).max(1));
}

/// Stops the timer.
pub fn stop_timer() {
    write(INITIAL_COUNT, 0);
}

/// Has it count down from the greatest value, without an interrupt; returns the count.
pub fn start_count() -> u32 {
    write(LVT_TIMER, (FIRST_VECTOR + TIMER) | MASKED);
    write(INITIAL_COUNT, u32::MAX);
    count()
}

/// The timer's count.
pub fn count() -> u32 {
    read(CURRENT_COUNT)
}

/// The end of [`start_count`].
pub fn stop_count() {
    write(INITIAL_COUNT, 0);
    write(LVT_TIMER, FIRST_VECTOR + TIMER);
}

/// What would end a halt at once.
pub fn pending() -> Lines {
    Lines(read(REQUESTED) & Lines::ALL.0)
}

/// After a halt: what ended it. From here on it can interrupt again.
pub fn take() -> Lines {
    let lines = Lines(read(IN_SERVICE) & Lines::ALL.0);
    if lines.0 != 0 {
        write(END_OF_INTERRUPT, 0);
    }
    lines
}
