//! The guest's memory as KVM has it, and the log of the pages written to it.
//!
//! A set is KVM's log of the guest's writes together with [`GuestRam`]'s marks of the VMM's writes.
//! Reading the log and clearing it are two steps where KVM supports that
//! (`KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2`): the last round of a move only reads, since clearing would
//! write-protect pages for a guest that is about to leave, and a move that fails after it has lost
//! nothing (rule R2).

use super::{Error, failed};
use crate::memory::{GuestRam, PageSet};
use kvm_bindings::{
    KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, KVM_MEM_LOG_DIRTY_PAGES, KVMIO, kvm_clear_dirty_log,
    kvm_clear_dirty_log__bindgen_ty_1, kvm_dirty_log, kvm_dirty_log__bindgen_ty_1, kvm_enable_cap,
    kvm_userspace_memory_region,
};
use kvm_ioctls::VmFd;
use migrate::page_set::GROUP;
use std::{
    io,
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};
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

/// The memory slot of a VM and its dirty log. Usable from any thread, also while the vCPU runs.
#[derive(Debug)]
pub struct DirtyLog {
    vm: Arc<VmFd>,
    ram: Arc<GuestRam>,
    /// Whether KVM clears only on request.
    manual: bool,
    /// Whether a log begins with every page in it.
    initially_set: bool,
    /// Held while the log is read, so that each set is consistent.
    reader: Mutex<Reader>,
}

/// The log's user, and the bitmap that it reads into.
#[derive(Debug)]
struct Reader {
    /// The user for which KVM logs.
    user: User,
    /// The buffer for KVM's bitmap, kept while KVM logs: untouched memory costs a page fault for
    /// each page of the buffer, ten times the cost of the copy.
    bitmap: Vec<u64>,
}

/// The log's users.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum User {
    Nobody,
    /// A [`Watch`], with its number. It yields to a user that needs the log.
    Watch(u64),
    /// The caller of [`DirtyLog::start_full`].
    Owner,
}

impl DirtyLog {
    /// This many pages of a [full](Self::start_full) log are cleared at a time, right before they
    /// are read: after that the guest takes a fault for each of them that it writes to.
    pub const PIECE: usize = 256;

    pub(super) fn new(vm: Arc<VmFd>, ram: Arc<GuestRam>) -> Result<Self, Error> {
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
        let reader = Mutex::new(Reader { user: User::Nobody, bitmap: Vec::new() });
        let log = Self { vm, ram, manual, initially_set, reader };
        log.set_region(0)?;
        Ok(log)
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

    /// Starts logging: from now on every page that changes will be in a returned set. So may be any
    /// page that was not [left out](Self::leave_out) since: the log begins full where KVM supports
    /// that, as an empty one would at once slow the guest down by a fault for each page that it
    /// writes to.
    ///
    /// # Errors
    /// [`Error::Call`].
    pub fn start_full(&self) -> Result<(), Error> {
        let mut reader = self.lock();
        if reader.user == User::Nobody {
            self.log_all(&mut reader)?;
        }
        // A watch's log began empty, so it continues with what was watched.
        reader.user = User::Owner;
        Ok(())
    }

    /// Clears these pages from the log: the caller is about to read their content, and the log has
    /// them again when they change. Both ends of the range are multiples of 64, or its end is that
    /// of the memory.
    ///
    /// # Errors
    /// [`Error::Call`]. Nothing is lost then.
    pub fn leave_out(&self, pages: Range<usize>) -> Result<(), Error> {
        if !self.initially_set {
            // The log began empty.
            return Ok(());
        }
        let _reader = self.lock();
        self.clear(pages.start, &vec![u64::MAX; pages.len().div_ceil(UNIT)], pages.len())
    }

    /// Starts measuring how much the guest writes, unless the log is in use.
    ///
    /// # Errors
    /// [`Error::Call`].
    pub fn watch(&self) -> Result<Option<Watch<'_>>, Error> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let mut reader = self.lock();
        if reader.user != User::Nobody {
            return Ok(None);
        }
        self.log_from_now(&mut reader)?;
        let number = NUMBER.fetch_add(1, Relaxed);
        reader.user = User::Watch(number);
        Ok(Some(Watch { log: self, number }))
    }

    fn log_all(&self, reader: &mut Reader) -> Result<(), Error> {
        self.ram.forget_marks();
        // Non-zero, so that the host allocates the pages now.
        reader.bitmap = vec![u64::MAX; self.ram.pages().div_ceil(UNIT)];
        self.set_region(KVM_MEM_LOG_DIRTY_PAGES)
    }

    fn log_from_now(&self, reader: &mut Reader) -> Result<(), Error> {
        self.log_all(reader)?;
        if self.initially_set {
            // KVM does not set bits past the last page either.
            self.clear(0, &reader.bitmap, self.ram.pages())?;
        }
        Ok(())
    }

    /// Stops logging and discards the log.
    ///
    /// # Errors
    /// [`Error::Call`].
    pub fn stop(&self) -> Result<(), Error> {
        let mut reader = self.lock();
        if reader.user != User::Nobody {
            self.set_region(0)?;
            *reader = Reader { user: User::Nobody, bitmap: Vec::new() };
        }
        Ok(())
    }

    /// Takes the set of pages that changed since the last take: a page that changes from now on is
    /// in the next set.
    ///
    /// # Errors
    /// [`Error::Call`]. Nothing is lost then.
    pub fn take(&self) -> Result<PageSet, Error> {
        let mut reader = self.lock();
        let mut set = self.read(&mut reader)?;
        if self.manual {
            self.clear_read(&set, &reader.bitmap)?;
        }
        set.add(&self.ram.take_marks());
        Ok(set)
    }

    /// The set that [`take`](Self::take) would return. The log is left unchanged.
    ///
    /// # Errors
    /// [`Error::Call`].
    pub fn peek(&self) -> Result<PageSet, Error> {
        let mut reader = self.lock();
        let mut set = self.read(&mut reader)?;
        if !self.manual {
            // Reading has cleared KVM's part, so marks keep it.
            self.ram.put_marks_back(&set);
        }
        set.add(&self.ram.look_at_marks());
        Ok(set)
    }

    /// Returns taken pages to the log that did not reach their destination.
    pub fn put_back(&self, pages: &PageSet) {
        self.ram.put_marks_back(pages);
    }

    fn lock(&self) -> MutexGuard<'_, Reader> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has KVM copy its bitmap: 4 µs for 4 GiB, and as much again to find the words that are not
    /// zero. KVM has no narrower query, except a ring that stops the guest when it is full.
    fn read(&self, reader: &mut Reader) -> Result<PageSet, Error> {
        let Reader { bitmap, .. } = reader;
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
        Ok(PageSet::from_words(bitmap, self.ram.pages()))
    }

    /// Clears the pages of a set that was read into `bitmap`: only the range from its first page to
    /// its last.
    fn clear_read(&self, set: &PageSet, bitmap: &[u64]) -> Result<(), Error> {
        let mut groups = set.groups();
        let Some(first) = groups.next() else { return Ok(()) };
        let first = first * GROUP;
        let end = ((groups.last().map_or(first, |n| n * GROUP)) + GROUP).min(self.ram.pages());
        self.clear(first, &bitmap[first / UNIT..], end - first)
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

/// Measures how much the guest writes. A user that [starts](DirtyLog::start_full) the log meanwhile
/// takes it over, and the measurement is lost.
#[derive(Debug)]
pub struct Watch<'log> {
    log: &'log DirtyLog,
    number: u64,
}

impl Watch<'_> {
    /// How many pages were written since; `None` if the log has another user now.
    ///
    /// # Errors
    /// [`Error::Call`].
    pub fn pages(self) -> Result<Option<usize>, Error> {
        let mut reader = self.log.lock();
        // Under the lock, so that no user starts the log while it is read here.
        if reader.user != User::Watch(self.number) {
            return Ok(None);
        }
        Ok(Some(self.log.read(&mut reader)?.len()))
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        let mut reader = self.log.lock();
        if reader.user != User::Watch(self.number) {
            return;
        }
        match self.log.set_region(0) {
            Ok(()) => *reader = Reader { user: User::Nobody, bitmap: Vec::new() },
            // The log continues as an abandoned watch, and the next user takes it over.
            Err(e) => tracing::warn!("{}", crate::host::with_causes(&e)),
        }
    }
}
