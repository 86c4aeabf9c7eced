//! Guest memory that successive checks reuse: making it anew costs more than most checks.

use std::cell::RefCell;

use vmm::memory::{GuestRam, Writable};
use vmm_lite_interface::layout::IMAGE_BASE;

/// Size of the guest's memory, in bytes: the minimum.
pub const MEMORY: u64 = 2 * IMAGE_BASE;

thread_local! {
    static RAM: RefCell<GuestRam> =
        RefCell::new(GuestRam::new(MEMORY).expect("memory for a small guest"));
}

thread_local! {
    static COPIES: RefCell<[Vec<u8>; 2]> = RefCell::new([0, 1].map(|_| vec![0; MEMORY as usize]));
}

/// Calls `f` with zeroed memory.
pub fn with_ram(f: impl FnOnce(Writable<'_>)) {
    RAM.with_borrow_mut(|ram| {
        let ram = ram.writable();
        ram.write(0, &[0; MEMORY as usize]).expect("all of it");
        f(ram);
    });
}

/// Calls `f` with buffers for two copies of all memory.
pub fn with_copies<T>(f: impl FnOnce(&mut [Vec<u8>; 2]) -> T) -> T {
    COPIES.with_borrow_mut(f)
}
