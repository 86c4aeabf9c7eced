//! Random numbers.
use crate::{arch::cpu, platform};
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
static STATE: AtomicU64 = AtomicU64::new(0);
/// Fills the buffer.
pub fn fill(buffer: &mut [u8]) {
    for chunk in buffer.chunks_mut(8) {
        let seed = platform::control().map_or(0, |c| c.entropy[0].load(Relaxed));
        let mut x = STATE.load(Relaxed).wrapping_add(0x9e37_79b9_7f4a_7c15)
            ^ cpu::hardware_random().unwrap_or_else(cpu::tsc)
            ^ seed;
        STATE.store(x, Relaxed);
        x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        chunk.copy_from_slice(&x.to_le_bytes()[..chunk.len()]);
    }
}
