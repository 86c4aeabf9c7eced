//! The memory slot of a VM: KVM's calls that log writes, read the log and clear it.

use crate::{
    kvm::{Error, failed},
    memory::{GuestRam, PageSet, SAMPLES_RING},
};
use kvm_bindings::{
    KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, KVM_MEM_LOG_DIRTY_PAGES, KVMIO, kvm_clear_dirty_log,
    kvm_clear_dirty_log__bindgen_ty_1, kvm_dirty_log, kvm_dirty_log__bindgen_ty_1, kvm_enable_cap,
    kvm_userspace_memory_region,
};
use kvm_ioctls::VmFd;
use migrate::page_set::GROUP;
use std::{io, ops::Range, sync::Arc};
use vmm_sys_util::{
    ioctl::{ioctl_with_mut_ref, ioctl_with_ref},
    ioctl_iow_nr, ioctl_iowr_nr,
};

ioctl_iow_nr!(KVM_GET_DIRTY_LOG, KVMIO, 0x42, kvm_dirty_log);
ioctl_iowr_nr!(KVM_CLEAR_DIRTY_LOG, KVMIO, 0xc0, kvm_clear_dirty_log);

const SLOT: u32 = 0;
/// Flag of the capability: reading the log does not clear it.
const MANUAL_PROTECT_ENABLE: u64 = 1;
/// Flag of the capability: a log begins with every page in it, and none protected.
const INITIALLY_SET: u64 = 2;
/// Pages are cleared from the log in multiples of this number: KVM's unit.
const UNIT: usize = 64;

/// The ring of samples in its word of a bitmap.
const RING_BITS: u64 = {
    assert!(SAMPLES_RING.start / UNIT == (SAMPLES_RING.end - 1) / UNIT, "it lies in one word");
    (u64::MAX >> (UNIT - (SAMPLES_RING.end - SAMPLES_RING.start))) << (SAMPLES_RING.start % UNIT)
};

/// All of a VM's memory, as KVM has it.
#[derive(Debug)]
pub(super) struct Slot {
    vm: Arc<VmFd>,
    ram: Arc<GuestRam>,
    /// Whether KVM clears only on request.
    pub manual: bool,
    /// Whether a log begins with every page in it.
    pub initially_set: bool,
}

impl Slot {
    /// Gives the guest its memory, whose writes are not logged yet.
    pub fn new(vm: Arc<VmFd>, ram: Arc<GuestRam>) -> Result<Self, Error> {
        let offers = vm.check_extension_raw(KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2.into());
        let offers = offers as u64 & (MANUAL_PROTECT_ENABLE | INITIALLY_SET);
        let manual = offers & MANUAL_PROTECT_ENABLE != 0;
        if manual {
            let cap = kvm_enable_cap {
                cap: KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
                args: [offers, 0, 0, 0],
                ..Default::default()
            };
            vm.enable_cap(&cap).map_err(failed("take charge of clearing the dirty log"))?;
        }
        let initially_set = manual && offers & INITIALLY_SET != 0;
        let slot = Self { vm, ram, manual, initially_set };
        slot.set_region(0)?;
        Ok(slot)
    }

    fn set_region(&self, flags: u32) -> Result<(), Error> {
        let region = kvm_userspace_memory_region {
            slot: SLOT,
            flags,
            guest_phys_addr: 0,
            memory_size: self.ram.size(),
            userspace_addr: self.ram.host_address() as u64,
        };
        // SAFETY: the range is `ram`'s mapping, which `self` and the vCPU keep alive as long as the
        // VM.
        unsafe { self.vm.set_user_memory_region(region) }
            .map_err(failed("give the guest its memory"))
    }

    /// Starts KVM's log. Returns the buffer to [read](Self::read) it into.
    pub fn start(&self) -> Result<Vec<u64>, Error> {
        self.set_region(KVM_MEM_LOG_DIRTY_PAGES)?;
        // Non-zero, so that the host allocates the pages now.
        Ok(vec![u64::MAX; self.ram.pages().div_ceil(UNIT)])
    }

    /// Stops it, and discards what is in it.
    pub fn stop(&self) -> Result<(), Error> {
        self.set_region(0)
    }

    /// Has KVM copy its bitmap: 4 µs for 4 GiB, and as much again to find the words that are not
    /// zero. KVM has no narrower query, except a ring that stops the guest when it is full.
    pub fn read(&self, bitmap: &mut Vec<u64>) -> Result<PageSet, Error> {
        bitmap.resize(self.ram.pages().div_ceil(UNIT), 0);
        let mut log = kvm_dirty_log {
            slot: SLOT,
            padding1: 0,
            __bindgen_anon_1: kvm_dirty_log__bindgen_ty_1 {
                dirty_bitmap: bitmap.as_mut_ptr().cast(),
            },
        };
        // SAFETY: the bitmap has a bit for every page of the slot, rounded up to 64 as KVM writes
        // it.
        let r = unsafe { ioctl_with_mut_ref(&*self.vm, KVM_GET_DIRTY_LOG(), &mut log) };
        if r != 0 {
            let source = io::Error::last_os_error();
            return Err(Error::Call { doing: "read the dirty log", source });
        }
        // Never copied, so never cleared either: the guest writes there without a fault.
        bitmap[SAMPLES_RING.start / UNIT] &= !RING_BITS;
        Ok(PageSet::from_words(bitmap, self.ram.pages()))
    }

    /// Clears the pages of a set that was read into `bitmap`: only the range from its first page to
    /// its last.
    pub fn clear_read(&self, set: &PageSet, bitmap: &[u64]) -> Result<(), Error> {
        let mut groups = set.groups();
        let Some(first) = groups.next() else { return Ok(()) };
        let first = first * GROUP;
        let end = ((groups.last().map_or(first, |n| n * GROUP)) + GROUP).min(self.ram.pages());
        self.clear(first, &bitmap[first / UNIT..], end - first)
    }

    /// Clears, of the pages in `range`, those whose bits are set in `bitmap`, which is for all
    /// pages. Its start is a multiple of 64, and so is its end, or it is that of the memory.
    pub fn clear_range(&self, range: Range<usize>, bitmap: &[u64]) -> Result<(), Error> {
        self.clear(range.start, &bitmap[range.start / UNIT..], range.len())
    }

    /// Clears all pages in `range`.
    pub fn clear_all(&self, range: Range<usize>) -> Result<(), Error> {
        self.clear(range.start, &vec![u64::MAX; range.len().div_ceil(UNIT)], range.len())
    }

    /// Clears, of `count` pages from `first` on, those whose bits are set.
    fn clear(&self, first: usize, bits: &[u64], count: usize) -> Result<(), Error> {
        assert!(bits.len() * UNIT >= count, "a bit for each page");
        let clear = kvm_clear_dirty_log {
            slot: SLOT,
            num_pages: count as u32,
            first_page: first as u64,
            __bindgen_anon_1: kvm_clear_dirty_log__bindgen_ty_1 {
                dirty_bitmap: bits.as_ptr().cast_mut().cast(),
            },
        };
        // SAFETY: KVM only reads the bitmap, which has a bit for each of the given pages.
        let r = unsafe { ioctl_with_ref(&*self.vm, KVM_CLEAR_DIRTY_LOG(), &clear) };
        if r != 0 {
            let source = io::Error::last_os_error();
            return Err(Error::Call { doing: "clear the dirty log", source });
        }
        Ok(())
    }
}
