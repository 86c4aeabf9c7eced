//! Clocks: from the control page under vmm-lite, from the TSC alone under QEMU. Neither needs an exit.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::{arch::cpu, platform};

static QEMU_BASE: AtomicU64 = AtomicU64::new(0);
static QEMU_HZ: AtomicU64 = AtomicU64::new(0);
static LAST: AtomicU64 = AtomicU64::new(0);

/// Nanoseconds since the guest's first boot; never goes back.
#[must_use]
pub fn now_ns() -> u64 {
    let now = match platform::control() {
        Some(control) => {
            let clock = &control.clock;
            let ticks = cpu::tsc().saturating_sub(clock.tsc_base.load(Ordering::Relaxed));
            let ns = u128::from(ticks) * u128::from(clock.mult.load(Ordering::Relaxed)) >> 32;
            clock.mono_base_ns.load(Ordering::Relaxed) + ns as u64
        }
        None => {
            let ticks = cpu::tsc().saturating_sub(QEMU_BASE.load(Ordering::Relaxed));
            (u128::from(ticks) * 1_000_000_000 / u128::from(QEMU_HZ.load(Ordering::Relaxed).max(1)))
                as u64
        }
    };
    // One vCPU: no other writer between.
    let now = now.max(LAST.load(Ordering::Relaxed));
    LAST.store(now, Ordering::Relaxed);
    now
}

/// Nanoseconds since 1970.
#[must_use]
pub fn wall_ns() -> u64 {
    let offset = platform::control().map_or(0, |c| c.clock.wall_offset_ns.load(Ordering::Relaxed));
    now_ns() + offset
}

/// Sets the clock's pace under QEMU.
pub fn set_tsc(base: u64, hz: u64) {
    QEMU_BASE.store(base, Ordering::Relaxed);
    QEMU_HZ.store(hz, Ordering::Relaxed);
}
