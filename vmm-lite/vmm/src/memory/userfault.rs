//! Faults of guest memory, served by this process: `userfaultfd`.
//!
//! A [`Userfault`] watches pages of one [`GuestRam`] for accesses to missing pages
//! ([`Watch::Missing`]) or writes to protected pages ([`Watch::Writes`]). The thread that makes
//! such an access, be it the vCPU in the guest or a thread of the VMM that reads a queue, blocks
//! until another thread reads the [`Fault`] and fills in the page or lifts the protection. So **the
//! thread that serves faults must never touch guest memory through the mapping** where a page may
//! be missing or, for a write, protected: it would wait for itself. (Reading protected pages is
//! safe.)
//!
//! Pages are named by number, so that nothing outside of the guest's memory can be reached; all
//! calls are safe at any time, from any thread, with the guest running.
//!
//! [`Userfault::open`] finds out what the host permits: since KVM faults from kernel mode, a
//! descriptor for faults of user mode only is not enough, and the full one takes root,
//! `CAP_SYS_PTRACE`, access to `/dev/userfaultfd`, or the sysctl `vm.unprivileged_userfaultfd`. A
//! process that is about to give these up [keeps](keep) what it needs.

mod descriptor;

pub use descriptor::keep;

use super::{GuestRam, PAGE};
use descriptor::Descriptor;
use std::{
    io,
    ops::Range,
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
    sync::Arc,
};
use vmm_sys_util::{
    ioctl::{ioctl_with_mut_ref, ioctl_with_ref},
    ioctl_ior_nr, ioctl_iowr_nr,
};

// The kernel's interface (linux/userfaultfd.h).

const UFFD: u32 = 0xaa;

const MODE_MISSING: u64 = 1 << 0;
const MODE_WRITES: u64 = 1 << 1;

const COPY_PROTECTED: u64 = 1 << 1;
const PROTECT: u64 = 1 << 0;

const EVENT_PAGEFAULT: u8 = 0x12;
const FAULT_WRITE: u64 = 1 << 0;
const FAULT_PROTECTED: u64 = 1 << 1;

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct KernelRange {
    start: u64,
    len: u64,
}

#[repr(C)]
#[derive(Default)]
struct Register {
    range: KernelRange,
    mode: u64,
    ioctls: u64,
}

#[repr(C)]
#[derive(Default)]
struct CopyPages {
    to: u64,
    from: u64,
    len: u64,
    mode: u64,
    /// Bytes copied, or a negative error number.
    copied: i64,
}

#[repr(C)]
#[derive(Default)]
struct Zero {
    range: KernelRange,
    mode: u64,
    zeroed: i64,
}

#[repr(C)]
#[derive(Default)]
struct WriteProtect {
    range: KernelRange,
    mode: u64,
}

/// `struct uffd_msg`, the fields that page faults use.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Event {
    event: u8,
    _reserved: [u8; 7],
    flags: u64,
    address: u64,
    _thread: u64,
}

ioctl_iowr_nr!(UFFDIO_REGISTER, UFFD, 0x00, Register);
ioctl_ior_nr!(UFFDIO_UNREGISTER, UFFD, 0x01, KernelRange);
ioctl_ior_nr!(UFFDIO_WAKE, UFFD, 0x02, KernelRange);
ioctl_iowr_nr!(UFFDIO_COPY, UFFD, 0x03, CopyPages);
ioctl_iowr_nr!(UFFDIO_ZEROPAGE, UFFD, 0x04, Zero);
ioctl_iowr_nr!(UFFDIO_WRITEPROTECT, UFFD, 0x06, WriteProtect);

/// Events read by one call.
const EVENTS: usize = 64;

/// Why this host cannot serve faults.
#[derive(thiserror::Error, Debug)]
pub enum Error {
    /// The process has no permission.
    #[error(
        "this host does not let this user serve page faults of a VM: run as root, give the user \
         access to {}, or set the sysctl vm.unprivileged_userfaultfd to 1",
        descriptor::DEVICE
    )]
    Forbidden(#[source] io::Error),
    /// The kernel has no userfaultfd, or an old one that lacks this feature.
    #[error("this host's kernel lacks {0}")]
    Lacks(&'static str),
    /// A call failed.
    #[error("cannot {doing} (userfaultfd)")]
    Call {
        /// What was tried.
        doing: &'static str,
        /// The kernel's error.
        source: io::Error,
    },
    /// The guest does not have these pages, or the range is empty.
    #[error("pages {0:?} are not pages of the guest")]
    Outside(Range<usize>),
}

/// Which accesses to a page fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Watch {
    /// All accesses, while the page is missing.
    Missing,
    /// Writes, while the page is [protected](Userfault::protect).
    Writes,
    /// Both.
    MissingAndWrites,
}

/// An access that waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    /// The page.
    pub page: usize,
    /// Whether it is a write.
    pub write: bool,
    /// Whether the page is present and protected; otherwise it is missing.
    pub protected: bool,
}

/// Serves faults of a guest's memory. Dropping it releases all accesses: missing pages become zero,
/// protected pages writable.
#[derive(Debug)]
pub struct Userfault {
    fd: Descriptor,
    ram: Arc<GuestRam>,
}

impl Userfault {
    /// Opens a descriptor for faults of `ram`. Nothing faults yet. It does not block, and exec
    /// closes it.
    ///
    /// # Errors
    /// [`Error::Forbidden`], [`Error::Lacks`].
    pub fn open(ram: &Arc<GuestRam>) -> Result<Self, Error> {
        Ok(Self { fd: Descriptor::get()?, ram: Arc::clone(ram) })
    }

    /// The memory that it watches.
    #[must_use]
    pub fn ram(&self) -> &Arc<GuestRam> {
        &self.ram
    }

    /// Makes accesses to `pages` fault from now on. With [`Watch::Missing`], present pages do not
    /// fault; with [`Watch::Writes`] nothing does until it is protected. With missing pages the
    /// memory is no longer [complete](GuestRam::complete), until an [`Arriving`](super::Arriving)
    /// says so.
    ///
    /// # Errors
    /// [`Error::Call`], [`Error::Outside`].
    pub fn register(&self, pages: Range<usize>, watch: Watch) -> Result<(), Error> {
        let mode = match watch {
            Watch::Missing => MODE_MISSING,
            Watch::Writes => MODE_WRITES,
            Watch::MissingAndWrites => MODE_MISSING | MODE_WRITES,
        };
        let mut register = Register { range: self.range(&pages)?, mode, ioctls: 0 };
        if watch != Watch::Writes {
            self.ram.presence.watched_for_missing();
        }
        // SAFETY: the call reads and fills this structure; the range is of the guest's mapping. The
        // effect of a fault is described above.
        let r = unsafe { ioctl_with_mut_ref(self, UFFDIO_REGISTER(), &mut register) };
        checked(r, "watch the guest's memory")
    }

    /// Stops watching `pages`: waiting accesses continue; protection is lifted.
    ///
    /// # Errors
    /// [`Error::Call`], [`Error::Outside`].
    pub fn unregister(&self, pages: Range<usize>) -> Result<(), Error> {
        let range = self.range(&pages)?;
        // SAFETY: the call reads this structure.
        let r = unsafe { ioctl_with_ref(self, UFFDIO_UNREGISTER(), &range) };
        checked(r, "stop watching the guest's memory")?;
        // The kernel itself wakes only threads that wait for missing pages.
        self.wake(pages)
    }

    /// Fills in the missing pages from `first` on with `content`, and wakes the threads that wait
    /// for them. Present pages are left as they are. Each page appears whole: no thread sees half
    /// of it. Returns how many were filled in.
    ///
    /// # Errors
    /// [`Error::Call`], [`Error::Outside`]; some pages may be filled in.
    pub fn copy(&self, first: usize, content: &[[u8; PAGE]]) -> Result<usize, Error> {
        self.copy_with(first, content, 0)
    }

    /// Like [`copy`](Self::copy), with the pages protected from the start. They must be watched for
    /// writes.
    ///
    /// # Errors
    /// As [`copy`](Self::copy).
    pub fn copy_protected(&self, first: usize, content: &[[u8; PAGE]]) -> Result<usize, Error> {
        self.copy_with(first, content, COPY_PROTECTED)
    }

    fn copy_with(&self, first: usize, content: &[[u8; PAGE]], mode: u64) -> Result<usize, Error> {
        self.fill(first, content.len(), "put pages into the guest's memory", |range, at| {
            let from = content.as_ptr().wrapping_add(at) as u64;
            let mut copy = CopyPages { to: range.start, from, len: range.len, mode, copied: 0 };
            // SAFETY: the call reads and fills this structure. It reads `len` bytes of `content`,
            // which has them from index `at` on, and makes pages of the guest's mapping.
            let r = unsafe { ioctl_with_mut_ref(self, UFFDIO_COPY(), &mut copy) };
            (r, copy.copied)
        })
    }

    /// Makes the `count` missing pages from `first` on zero, and wakes the threads that wait for
    /// them. Present pages are left as they are. Returns how many were made.
    ///
    /// # Errors
    /// [`Error::Call`], [`Error::Outside`]; some pages may be made.
    pub fn zero(&self, first: usize, count: usize) -> Result<usize, Error> {
        self.fill(first, count, "make pages of the guest's memory zero", |range, _| {
            let mut zero = Zero { range, mode: 0, zeroed: 0 };
            // SAFETY: the call reads and fills this structure; it makes pages of the guest's
            // mapping.
            let r = unsafe { ioctl_with_mut_ref(self, UFFDIO_ZEROPAGE(), &mut zero) };
            (r, zero.zeroed)
        })
    }

    /// Calls `fill` until the kernel has gone through all pages: it stops at a present page, and
    /// when the mapping is being changed.
    fn fill(
        &self,
        first: usize,
        count: usize,
        doing: &'static str,
        mut fill: impl FnMut(KernelRange, usize) -> (i32, i64),
    ) -> Result<usize, Error> {
        let end = first.checked_add(count).ok_or(Error::Outside(first..usize::MAX))?;
        let (mut at, mut put) = (first, 0);
        while at < end {
            let (r, done) = fill(self.range(&(at..end))?, at - first);
            let error = io::Error::last_os_error();
            let done = usize::try_from(done).unwrap_or(0) / PAGE;
            (at, put) = (at + done, put + done);
            match error.raw_os_error() {
                _ if r == 0 => {}
                Some(libc::EAGAIN) => {}
                Some(libc::EEXIST) => {
                    // A thread that faulted on the page before it arrived may still sleep.
                    self.wake(at..at + 1)?;
                    at += 1;
                }
                _ => return Err(Error::Call { doing, source: error }),
            }
        }
        Ok(put)
    }

    /// Makes writes to `pages` fault, or allows them again and wakes threads that wait to write.
    /// Untouched pages can be protected too.
    ///
    /// # Errors
    /// [`Error::Call`], [`Error::Outside`].
    pub fn protect(&self, pages: Range<usize>, protect: bool) -> Result<(), Error> {
        let range = self.range(&pages)?;
        loop {
            let mut change = WriteProtect { range, mode: if protect { PROTECT } else { 0 } };
            // SAFETY: the call reads and fills this structure; the range is of the guest's mapping.
            let r = unsafe { ioctl_with_mut_ref(self, UFFDIO_WRITEPROTECT(), &mut change) };
            // Another thread is changing the mapping, which takes only a moment.
            if r == 0 || io::Error::last_os_error().raw_os_error() != Some(libc::EAGAIN) {
                return checked(r, "protect the guest's memory");
            }
        }
    }

    /// Wakes threads that wait for `pages`, to retry their access.
    ///
    /// # Errors
    /// [`Error::Call`], [`Error::Outside`].
    pub fn wake(&self, pages: Range<usize>) -> Result<(), Error> {
        let range = self.range(&pages)?;
        // SAFETY: the call reads this structure.
        let r = unsafe { ioctl_with_ref(self, UFFDIO_WAKE(), &range) };
        checked(r, "wake threads that wait for the guest's memory")
    }

    /// Appends the waiting accesses that were not read yet, without waiting for one: poll the
    /// descriptor for that. Several threads may wait for the same page; each access is reported
    /// once.
    ///
    /// # Errors
    /// [`Error::Call`].
    pub fn read(&self, faults: &mut Vec<Fault>) -> Result<(), Error> {
        loop {
            let mut events = [Event::default(); EVENTS];
            let room = size_of_val(&events);
            // SAFETY: a buffer of that length, for whose type every bit pattern is valid.
            let n =
                unsafe { libc::read(self.fd.fd().as_raw_fd(), events.as_mut_ptr().cast(), room) };
            let Ok(n) = usize::try_from(n) else {
                match io::Error::last_os_error() {
                    e if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                    e if e.kind() == io::ErrorKind::Interrupted => continue,
                    source => return Err(Error::Call { doing: "read faults", source }),
                }
            };
            let read = &events[..n / size_of::<Event>()];
            faults.extend(read.iter().filter_map(|event| self.fault(event)));
            if read.len() < EVENTS {
                return Ok(());
            }
        }
    }

    fn fault(&self, event: &Event) -> Option<Fault> {
        let offset = event.address.checked_sub(self.ram.host_address() as u64)?;
        let page = offset as usize / PAGE;
        (event.event == EVENT_PAGEFAULT && page < self.ram.pages()).then_some(Fault {
            page,
            write: event.flags & FAULT_WRITE != 0,
            protected: event.flags & FAULT_PROTECTED != 0,
        })
    }

    /// Where `pages` are mapped.
    fn range(&self, pages: &Range<usize>) -> Result<KernelRange, Error> {
        if pages.is_empty() || pages.end > self.ram.pages() {
            return Err(Error::Outside(pages.clone()));
        }
        let start = self.ram.host_address() as u64 + (pages.start * PAGE) as u64;
        Ok(KernelRange { start, len: (pages.len() * PAGE) as u64 })
    }
}

impl Drop for Userfault {
    fn drop(&mut self) {
        // A kept descriptor is not closed here, and another memory uses it next.
        if self.fd.is_kept()
            && let Err(e) = self.unregister(0..self.ram.pages())
        {
            tracing::warn!("{e}");
        }
    }
}

impl AsRawFd for Userfault {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.fd().as_raw_fd()
    }
}

impl AsFd for Userfault {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.fd()
    }
}

fn checked(r: i32, doing: &'static str) -> Result<(), Error> {
    if r == 0 { Ok(()) } else { Err(Error::Call { doing, source: io::Error::last_os_error() }) }
}
