//! What an XSAVE area means, independent of how the CPU encodes it.
//!
//! A component that is in its initial state may have its bit in XSTATE_BV or not: CPUs and KVMs
//! differ in when they set it, and one CPU does too, by whether the thread was switched meanwhile
//! (Intel SDM, volume 1, 13.6: XINUSE). AMD's CPUs neither save nor restore the x87 pointers unless
//! an x87 exception is pending.

use std::{arch::x86_64::__cpuid_count, ops::Range, sync::LazyLock};

/// Offset of XSTATE_BV, behind the legacy area.
const HEADER: usize = 512;
const X87: u64 = 1;
const SSE: u64 = 1 << 1;
const AVX: u64 = 1 << 2;
/// Control word and MXCSR after a CPU reset.
const FCW: u16 = 0x37f;
const MXCSR: u32 = 0x1f80;
/// Bit of the x87 status word: an exception is pending.
const PENDING: u16 = 1 << 7;

/// Size of the standard format, as KVM has it.
const AREA: usize = 4096;

/// The components beyond x87 and SSE, and their ranges in the standard format. Supervisor
/// components do not exist in it.
static EXTENDED: LazyLock<Vec<(u32, Range<usize>)>> = LazyLock::new(|| {
    let all = (2..63).map(|component| (component, extended(component)));
    all.filter(|(_, range)| !range.is_empty() && range.start > HEADER && range.end <= AREA)
        .collect()
});

fn extended(component: u32) -> Range<usize> {
    // Safe on every CPU that this is compiled for; the result describes the guest's CPU.
    #[allow(unused_unsafe)]
    // SAFETY: `cpuid` exists on every x86-64 CPU, with no effect but its result.
    let leaf = unsafe { __cpuid_count(0xd, component) };
    let (size, at) = (leaf.eax as usize, leaf.ebx as usize);
    at..at + size
}

/// An XSAVE area with one encoding for each component that is in its initial state: it equals
/// another's exactly if both mean the same to a guest.
#[must_use]
pub fn canonical(area: &[u8]) -> Vec<u8> {
    let mut area = area.to_vec();
    area.resize(AREA, 0);
    let present = u64::from_le_bytes(area[HEADER..HEADER + 8].try_into().unwrap_or_default());
    let mut used = 0;
    if present & X87 == 0 {
        area[..24].fill(0);
        area[32..160].fill(0);
        area[..2].copy_from_slice(&FCW.to_le_bytes());
    }
    if u16::from_le_bytes([area[2], area[3]]) & PENDING == 0 {
        // The opcode and the two pointers.
        area[6..24].fill(0);
    }
    if area[..2] != FCW.to_le_bytes() || area[2..24].iter().chain(&area[32..160]).any(|b| *b != 0) {
        used |= X87;
    }
    // MXCSR is loaded with SSE and with AVX; its mask belongs to the CPU and is not state.
    if present & (SSE | AVX) == 0 {
        area[24..28].copy_from_slice(&MXCSR.to_le_bytes());
    }
    area[28..32].fill(0);
    if present & SSE == 0 {
        area[160..416].fill(0);
    }
    if area[24..28] != MXCSR.to_le_bytes() || area[160..416].iter().any(|b| *b != 0) {
        used |= SSE;
    }
    // The area for software, which the CPU ignores.
    area[416..512].fill(0);
    for (component, range) in EXTENDED.iter().cloned() {
        let bit = 1 << component;
        if present & bit == 0 {
            area[range].fill(0);
        } else if area[range].iter().any(|b| *b != 0) {
            used |= bit;
        }
    }
    area[HEADER..HEADER + 8].copy_from_slice(&used.to_le_bytes());
    area
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_in_their_initial_state_are_equal_in_every_encoding() {
        let with = |present: u64, change: &dyn Fn(&mut Vec<u8>)| {
            let mut area = vec![0; 4096];
            area[..2].copy_from_slice(&FCW.to_le_bytes());
            area[24..28].copy_from_slice(&MXCSR.to_le_bytes());
            area[HEADER..HEADER + 8].copy_from_slice(&present.to_le_bytes());
            change(&mut area);
            canonical(&area)
        };
        let initial = with(0, &|_| {});
        for present in 0..8 {
            assert_eq!(with(present, &|_| {}), initial, "{present:#b}");
        }
        // The area of an absent component means nothing.
        assert_eq!(with(0, &|a| a[32..416].fill(7)), initial);
        assert_eq!(with(X87, &|a| a[8..24].fill(7)), initial, "pointers without an exception");
        assert_eq!(with(0, &|a| a[24..28].fill(0)), initial, "MXCSR without SSE and AVX");
        // The area of a present component does.
        for (present, at) in [(X87, 0), (X87, 4), (X87, 40), (SSE, 160), (SSE, 24), (AVX, 24)] {
            assert_ne!(with(present, &|a| a[at] ^= 1), initial, "{present:#b} at {at}");
        }
        let avx = extended(2);
        if !avx.is_empty() {
            assert_ne!(with(AVX, &|a| a[avx.start] = 1), initial);
            assert_eq!(with(SSE, &|a| a[avx.start] = 1), initial);
        }
        let pending = |last: u8| {
            with(X87, &|a| {
                a[2..4].copy_from_slice(&PENDING.to_le_bytes());
                a[8] = last;
            })
        };
        assert_ne!(pending(1), pending(2), "pointers with an exception");
    }
}
