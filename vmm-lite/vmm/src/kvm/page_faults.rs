//! Counts how often the vCPU's second-level tables (shadow or nested) lacked a page, by KVM's
//! statistics.
//!
//! A new VM's tables are empty: each page costs the guest some microseconds when it first touches
//! it. Some KVMs fill in a page's neighbors too, which makes one such fault slower and saves
//! others.

use super::Error;
use kvm_bindings::{KVMIO, kvm_stats_desc, kvm_stats_header};
use kvm_ioctls::{VcpuFd, VmFd};
use std::{
    fs::File,
    io,
    mem::offset_of,
    os::{
        fd::{AsRawFd, FromRawFd},
        unix::fs::FileExt,
    },
};
use vmm_sys_util::{ioctl::ioctl, ioctl_io_nr};

ioctl_io_nr!(KVM_GET_STATS_FD, KVMIO, 0xce);

/// A counter of the vCPU: faults that KVM fixed by filling in a table's entry, or by emulating the
/// instruction. It does not count faults that KVM passed to the guest.
const FAULTS: &[&str] = &["pf_fixed", "pf_emulate"];
/// A counter of the VM: pages in the second-level tables.
const PAGES: &[&str] = &["pages_4k", "pages_2m", "pages_1g"];
/// Upper bound for the number of counters and for the bytes in a name, above those of any KVM.
/// Larger values are not trusted.
const MOST: u32 = 1024;

/// The counts so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Faults {
    /// How often a page was missing.
    pub count: u64,
    /// How many pages the tables have now. The number can shrink.
    pub pages: u64,
}

impl Faults {
    /// The counts of two vCPUs of a VM, which share its tables.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self { count: self.count + other.count, pages: self.pages.max(other.pages) }
    }

    /// The increase since `before`.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        let count = self.count.saturating_sub(before.count);
        Self { count, pages: self.pages.saturating_sub(before.pages) }
    }
}

/// Reads these counts, from any thread and while the vCPU runs.
#[derive(Debug)]
pub struct PageFaults {
    vcpu: Counters,
    vm: Counters,
}

impl PageFaults {
    /// Counts for `vcpu`, which must not be running, and its VM.
    ///
    /// # Errors
    /// [`Error::Call`] where KVM has no binary statistics (before Linux 5.14), [`Error::Lacks`]
    /// where these counters are missing.
    pub(super) fn of(vcpu: &VcpuFd, vm: &VmFd) -> Result<Self, Error> {
        Ok(Self { vcpu: Counters::of(vcpu, FAULTS)?, vm: Counters::of(vm, PAGES)? })
    }

    /// The counts since the vCPU was made.
    ///
    /// # Errors
    /// [`Error::Call`].
    pub fn read(&self) -> Result<Faults, Error> {
        Ok(Faults { count: self.vcpu.sum()?, pages: self.vm.sum()? })
    }
}

/// Counters to be summed.
#[derive(Debug)]
struct Counters {
    file: File,
    /// The counters' offsets.
    at: Vec<u64>,
}

impl Counters {
    fn of(whose: &impl AsRawFd, names: &[&str]) -> Result<Self, Error> {
        let failed = |source| Error::Call { doing: "show its statistics", source };
        // SAFETY: the call has no argument; the result is checked.
        let fd = unsafe { ioctl(whose, KVM_GET_STATS_FD()) };
        if fd < 0 {
            return Err(failed(io::Error::last_os_error()));
        }
        // SAFETY: a descriptor that was just made and has no other owner.
        let file = unsafe { File::from_raw_fd(fd) };
        let at = places(&file, names).map_err(failed)?;
        if at.is_empty() {
            return Err(Error::Lacks("a count of page faults in its statistics"));
        }
        Ok(Self { file, at })
    }

    fn sum(&self) -> Result<u64, Error> {
        let failed = |source| Error::Call { doing: "read its statistics", source };
        self.at.iter().try_fold(0_u64, |sum, &at| {
            let mut value = [0; 8];
            self.file.read_exact_at(&mut value, at).map_err(failed)?;
            Ok(sum.wrapping_add(u64::from_ne_bytes(value)))
        })
    }
}

/// Finds the offsets of the wanted counters.
fn places(file: &File, names: &[&str]) -> io::Result<Vec<u64>> {
    let mut header = [0; size_of::<kvm_stats_header>()];
    file.read_exact_at(&mut header, 0)?;
    let count = word(&header, offset_of!(kvm_stats_header, num_desc))?;
    let name_size = word(&header, offset_of!(kvm_stats_header, name_size))?;
    let data = word(&header, offset_of!(kvm_stats_header, data_offset))?;
    let head = size_of::<kvm_stats_desc>();
    if count > MOST || name_size > MOST {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let size = head + name_size as usize;
    let mut all = vec![0; count as usize * size];
    file.read_exact_at(&mut all, word(&header, offset_of!(kvm_stats_header, desc_offset))?.into())?;
    let mut found = Vec::new();
    for one in all.chunks_exact(size) {
        let name = one[head..].split(|byte| *byte == 0).next().unwrap_or_default();
        if names.iter().any(|wanted| wanted.as_bytes() == name) {
            let offset = word(one, offset_of!(kvm_stats_desc, offset))?;
            found.push(u64::from(data) + u64::from(offset));
        }
    }
    Ok(found)
}

/// The 32-bit number at an offset.
fn word(bytes: &[u8], at: usize) -> io::Result<u32> {
    let word = bytes.get(at..).and_then(|rest| rest.first_chunk());
    word.map(|word| u32::from_ne_bytes(*word)).ok_or(io::ErrorKind::InvalidData.into())
}
