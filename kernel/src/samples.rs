//! Samples: every value that the kernel takes from the CPU and does not compute. What a guest does
//! depends on its memory and registers, on what the VMM gives it at its exits, and on these: so
//! nothing else in the kernel reads the time stamp counter or the random generator.
//!
//! Under vmm-lite they go through a [ring](vmm_lite_interface::samples) that the VMM may record or
//! fill. Elsewhere there is no ring.

#[cfg(target_os = "hermit")]
pub use guest::{routines, use_ring};

/// The time stamp counter.
#[inline]
#[must_use]
pub fn tsc() -> u64 {
    #[cfg(target_os = "hermit")]
    if guest::ring() {
        return guest::tsc();
    }
    // SAFETY: every x86-64 CPU has it, and nothing here forbids it at CPL 3.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Random words of the CPU's; `None` for each that it does not give.
#[must_use]
pub fn random<const N: usize>() -> [Option<u64>; N] {
    // CPUID once for all words: where it is emulated, it takes longer than the rest.
    let has_rdrand = core::arch::x86_64::__cpuid(1).ecx & (1 << 30) != 0;
    core::array::from_fn(|_| if has_rdrand { word() } else { None })
}

fn word() -> Option<u64> {
    #[cfg(target_os = "hermit")]
    if guest::ring() {
        return Some(guest::random());
    }
    // SAFETY: the caller has asked CPUID whether the instruction is there.
    (0..10).find_map(|_| unsafe { crate::arch::cpu::rdrand() })
}

#[cfg(target_os = "hermit")]
mod guest {
    use core::{
        arch::global_asm,
        sync::atomic::{AtomicBool, Ordering::Relaxed},
    };
    use vmm_lite_interface::{
        doorbell::{Doorbell, PORT},
        layout::{SAMPLE_SLOTS_AT, SAMPLES},
        samples::{OFF, REPLAY, SampleRing},
    };

    global_asm!(
        include_str!("arch/x86_64/samples.s"),
        MODE = const SAMPLES as usize + core::mem::offset_of!(SampleRing, mode),
        POSITION = const SAMPLES as usize + core::mem::offset_of!(SampleRing, position),
        LIMIT = const SAMPLES as usize + core::mem::offset_of!(SampleRing, limit),
        SLOTS = const SAMPLE_SLOTS_AT,
        OFF = const OFF,
        REPLAY = const REPLAY,
        DOORBELL = const PORT,
        RUNG = const Doorbell::SAMPLES.0,
        options(att_syntax)
    );

    unsafe extern "C" {
        fn take_tsc() -> u64;
        fn take_tsc_counted();
        fn take_random() -> u64;
        fn take_random_counted();
    }

    /// Whether there is a ring: set at boot for good.
    static RING: AtomicBool = AtomicBool::new(false);

    /// Goes through the ring from now on.
    pub fn use_ring() {
        RING.store(true, Relaxed);
    }

    #[inline]
    pub(super) fn ring() -> bool {
        RING.load(Relaxed)
    }

    #[inline]
    pub(super) fn tsc() -> u64 {
        // SAFETY: with a ring, its pages are mapped, and the doorbell is open.
        unsafe { take_tsc() }
    }

    pub(super) fn random() -> u64 {
        // SAFETY: as above; the caller has asked CPUID for `rdrand`.
        unsafe { take_random() }
    }

    /// The routines' first addresses, and those of the instructions that count a sample.
    #[must_use]
    pub fn routines() -> [[u64; 2]; 2] {
        let at = |f: *const ()| f.addr() as u64;
        [
            [at(take_tsc as *const ()), at(take_tsc_counted as *const ())],
            [at(take_random as *const ()), at(take_random_counted as *const ())],
        ]
    }
}
