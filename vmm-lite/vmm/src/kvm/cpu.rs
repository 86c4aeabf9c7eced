//! The CPU as the guest sees it.
//!
//! With hardware virtualization the guest sees the CPUID that is set here. A KVM without it
//! (kvm-pvm) passes `cpuid` and `xgetbv` to the host's CPU, so the guest has seen all that this
//! host has. In both cases [`Features`] states what the guest could have found and may rely on, and
//! a host that lacks some of it must not receive the guest.

use kvm_bindings::{CpuId, kvm_cpuid_entry2};
use serde::{Deserialize, Serialize};
use std::{arch::x86_64::__cpuid_count, path::Path, sync::OnceLock};

/// The state components that a guest may enable: x87, SSE, AVX, AVX-512. Others (AMX, PKRU) would
/// not fit the state that is sent.
pub const XCR0_MAX: u64 = 0xe7;

const ECX: usize = 2;
const EDX: usize = 3;

/// Feature words that programs check: leaf, subleaf, register (0 eax, 1 ebx, 2 ecx, 3 edx), and the
/// bits of it that do not depend on what the guest's own kernel enables.
const WORDS: [(u32, u32, usize, u32); 10] = [
    (1, 0, ECX, !(1 << 27)), // OSXSAVE mirrors CR4
    (1, 0, EDX, !0),
    (7, 0, 1, !0),
    (7, 0, ECX, !(1 << 4)), // OSPKE mirrors CR4
    (7, 0, EDX, !0),
    (7, 1, 0, !0),
    (0xd, 0, 0, XCR0_MAX as u32),
    (0xd, 1, 0, !0),
    (0x8000_0001, 0, ECX, !0),
    (0x8000_0001, 0, EDX, !0),
];

/// Names of the features by which programs most often select code.
const NAMES: [(usize, u32, &str); 30] = [
    (0, 0, "sse3"),
    (0, 1, "pclmulqdq"),
    (0, 9, "ssse3"),
    (0, 12, "fma"),
    (0, 13, "cmpxchg16b"),
    (0, 19, "sse4.1"),
    (0, 20, "sse4.2"),
    (0, 22, "movbe"),
    (0, 23, "popcnt"),
    (0, 25, "aes"),
    (0, 26, "xsave"),
    (0, 28, "avx"),
    (0, 29, "f16c"),
    (0, 30, "rdrand"),
    (1, 26, "sse2"),
    (2, 0, "fsgsbase"),
    (2, 3, "bmi1"),
    (2, 5, "avx2"),
    (2, 8, "bmi2"),
    (2, 9, "erms"),
    (2, 16, "avx512f"),
    (2, 17, "avx512dq"),
    (2, 18, "rdseed"),
    (2, 19, "adx"),
    (2, 29, "sha"),
    (2, 30, "avx512bw"),
    (2, 31, "avx512vl"),
    (3, 8, "gfni"),
    (3, 9, "vaes"),
    (8, 5, "lzcnt"),
];

/// The CPU features that a guest could have found.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Features {
    /// GenuineIntel, AuthenticAMD, …
    pub vendor: String,
    words: [u32; WORDS.len()],
}

impl Features {
    /// What a guest on this host finds, given the CPUID that KVM supports.
    #[must_use]
    pub fn of_this_host(supported: &CpuId) -> Self {
        if sees_host_cpuid() {
            return Self::of_the_bare_cpu();
        }
        let entries = guest_cpuid(supported.clone());
        Self::from(|leaf, subleaf| {
            let found = entries.as_slice().iter();
            let mut found = found.filter(|e| e.function == leaf && e.index == subleaf);
            found.next().map_or([0; 4], |e| [e.eax, e.ebx, e.ecx, e.edx])
        })
    }

    /// What a guest finds that [sees the host's CPUID](sees_host_cpuid).
    #[must_use]
    pub fn of_the_bare_cpu() -> Self {
        // SAFETY: `cpuid` exists on every x86-64 CPU, with no effect but its result.
        #[allow(unused_unsafe)]
        let cpuid = |leaf, subleaf| unsafe { __cpuid_count(leaf, subleaf) };
        let highest = [0, 0x8000_0000].map(|first| cpuid(first, 0).eax);
        Self::from(|leaf, subleaf| {
            let r = cpuid(leaf, subleaf);
            let known = leaf <= highest[(leaf >> 31) as usize];
            if known { [r.eax, r.ebx, r.ecx, r.edx] } else { [0; 4] }
        })
    }

    fn from(cpuid: impl Fn(u32, u32) -> [u32; 4]) -> Self {
        let v = cpuid(0, 0);
        // Where the CPU itself is virtual each `cpuid` takes microseconds; words of one leaf are
        // adjacent in the list, so each leaf is read once.
        let mut last = None;
        let mut word = |leaf, subleaf, reg: usize| match last {
            Some((of, values)) if of == (leaf, subleaf) => (values as [u32; 4])[reg],
            _ => last.insert(((leaf, subleaf), cpuid(leaf, subleaf))).1[reg],
        };
        let vendor: Vec<u8> = [v[1], v[3], v[2]].iter().flat_map(|w| w.to_le_bytes()).collect();
        Self {
            vendor: String::from_utf8_lossy(&vendor).into_owned(),
            words: WORDS.map(|(leaf, subleaf, reg, mask)| word(leaf, subleaf, reg) & mask),
        }
    }

    /// The features that `self` has and `other` lacks, by name.
    #[must_use]
    pub fn missing_from(&self, other: &Self) -> Vec<String> {
        let mut missing = Vec::new();
        for (i, (mine, theirs)) in self.words.iter().zip(&other.words).enumerate() {
            let lacking = mine & !theirs;
            for bit in (0..32).filter(|bit| lacking >> bit & 1 == 1) {
                let name = NAMES.iter().find(|(word, b, _)| (*word, *b) == (i, bit));
                let (leaf, subleaf, reg, _) = WORDS[i];
                missing.push(name.map_or_else(
                    || {
                        format!(
                            "cpuid {leaf:#x}.{subleaf} {}[{bit}]",
                            ["eax", "ebx", "ecx", "edx"][reg]
                        )
                    },
                    |(_, _, name)| (*name).to_owned(),
                ));
            }
        }
        missing
    }
}

/// A model of CPU, and what the guest could find out about it. On two CPUs of one model a guest
/// computes the same; on others the least exact instructions (`rsqrtss`, `rcpps`) and what is left
/// in unused state may differ.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Model {
    /// GenuineIntel, AuthenticAMD, …
    vendor: String,
    /// Family and model: CPUID.1:EAX without the stepping.
    signature: u32,
    features: Features,
}

impl Model {
    /// This host's.
    #[must_use]
    pub fn of_this_host() -> Self {
        let features = Features::of_the_bare_cpu();
        // SAFETY: `cpuid` exists on every x86-64 CPU, with no effect but its result.
        #[allow(unused_unsafe)]
        let signature = unsafe { __cpuid_count(1, 0) }.eax & !0xf;
        Self { vendor: features.vendor.clone(), signature, features }
    }
}

impl std::fmt::Display for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let digest = crc32fast::hash(&postcard::to_stdvec(&self.features).unwrap_or_default());
        write!(f, "{} {:#x}, features {digest:08x}", self.vendor, self.signature)
    }
}

/// Whether the guest's `cpuid` and `xgetbv` run on the bare CPU, whatever CPUID is set.
#[must_use]
pub fn sees_host_cpuid() -> bool {
    // Checked once: later the process may not be able to read files.
    static SEES: OnceLock<bool> = OnceLock::new();
    *SEES.get_or_init(|| Path::new("/sys/module/kvm_pvm").exists())
}

/// The CPUID to set for the guest: all that KVM supports, without the state components beyond
/// [`XCR0_MAX`] and the features that need them.
pub(super) fn guest_cpuid(mut supported: CpuId) -> CpuId {
    for entry in supported.as_mut_slice() {
        limit(entry);
    }
    supported
}

fn limit(entry: &mut kvm_cpuid_entry2) {
    const MPX: u32 = 1 << 14;
    const PKU: u32 = 1 << 3 | 1 << 4;
    const AMX: u32 = 1 << 22 | 1 << 24 | 1 << 25;
    const XSAVES: u32 = 1 << 3;
    const XFD: u32 = 1 << 4;
    match (entry.function, entry.index) {
        (7, 0) => {
            entry.ebx &= !MPX;
            entry.ecx &= !PKU;
            entry.edx &= !AMX;
        }
        (0xd, 0) => {
            entry.eax &= XCR0_MAX as u32;
            entry.edx = 0;
        }
        (0xd, 1) => {
            entry.eax &= !(XSAVES | XFD);
            (entry.ecx, entry.edx) = (0, 0);
        }
        (0xd, n) if n >= 64 || XCR0_MAX >> n & 1 == 0 => {
            (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 0, 0, 0);
        }
        (0x1d | 0x1e, _) => (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 0, 0, 0),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_features_are_reported_by_name() {
        let mine = Features {
            vendor: "GenuineIntel".into(),
            words: [1 << 28, 0, 1 << 5 | 1 << 16, 0, 1 << 2, 0, 7, 0, 0, 0],
        };
        let theirs = Features {
            vendor: "GenuineIntel".into(),
            words: [1 << 28, 0, 1 << 5, !0, 0, 0, 7, 0, 0, 0],
        };
        assert_eq!(mine.missing_from(&theirs), ["avx512f", "cpuid 0x7.0 edx[2]"]);
        assert!(mine.missing_from(&mine).is_empty());
    }

    #[test]
    fn amx_is_hidden_with_its_state() {
        let mut seven = kvm_cpuid_entry2 { function: 7, edx: !0, ecx: !0, ..Default::default() };
        limit(&mut seven);
        assert_eq!(seven.edx & (1 << 24), 0);
        let mut d = kvm_cpuid_entry2 { function: 0xd, eax: 0x602ff, edx: 1, ..Default::default() };
        limit(&mut d);
        assert_eq!((u64::from(d.eax), d.edx), (0xe7, 0));
        let mut tile =
            kvm_cpuid_entry2 { function: 0xd, index: 18, eax: 8192, ..Default::default() };
        limit(&mut tile);
        assert_eq!(tile.eax, 0);
    }
}
