//! Guest memory, and what the VMM knows about each of its pages.
//!
//! RAM is one range from guest-physical 0, backed by a memfd. Everything the VMM itself writes to
//! it goes through `vm-memory`'s bitmap or is marked by hand right after the write, so that
//! [`DirtyLog`](crate::kvm::DirtyLog) can add it to KVM's log: a page that only the VMM wrote is
//! sent too.

mod error;
mod marks;
mod page_hints;
mod presence;
mod resident;
mod samples;
mod tables;
mod userfault;
mod writable;

pub use error::Error;
pub use marks::Marks;
/// A set of pages of a VM.
pub use migrate::page_set::PageSet;
pub use presence::{Absent, Arriving, Complete, Supply};
pub(crate) use samples::RING as SAMPLES_RING;
pub use samples::{Samples, TooMany};
pub use tables::Tables;
pub use userfault::{Error as UserfaultError, Fault, Userfault, Watch, keep as keep_userfault};
pub use writable::Writable;

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, FromRawFd},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};
use vm_memory::{
    Bytes, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion,
    GuestRegionMmap, MmapRegion, VolatileSlice,
    bitmap::{Bitmap, RefSlice},
    mmap::MmapRegionBuilder,
};
use vmm_lite_interface::{
    control::ControlPage,
    layout::{CONTROL_PAGE, IMAGE_BASE, MEMORY_MAX, PAGE_SIZE},
};

/// Size of a page as `usize`.
pub const PAGE: usize = PAGE_SIZE as usize;

/// The `vm-memory` type underneath, for rust-vmm's crates.
pub type Mmap = GuestMemoryMmap<Marks>;
/// A checked window into guest memory; its writes are logged.
pub type Slice<'a> = VolatileSlice<'a, RefSlice<'a, Marks>>;

/// A guest's RAM.
#[derive(Debug)]
pub struct GuestRam {
    mmap: Mmap,
    host: *mut u8,
    size: u64,
    /// Where the host reports which pages are present, if writes do not go to the file.
    pagemap: Option<File>,
    /// Whether marks were ever forgotten, or a guest ran; until then an unmarked page was never
    /// written.
    forgot: AtomicBool,
    /// Whether all of the memory is present.
    presence: presence::Presence,
}

// SAFETY: `host` points into `mmap`, which lives as long and is itself Send; all access through it
// is volatile or atomic, which a concurrently running guest requires anyway.
unsafe impl Send for GuestRam {}
// SAFETY: as above; there is no interior state but the guest's memory and the atomic bitmap.
unsafe impl Sync for GuestRam {}

impl GuestRam {
    /// Memory of `size` bytes, all zero, none of it resident yet.
    ///
    /// # Errors
    /// [`Error::Size`], [`Error::Allocate`].
    pub fn new(size: u64) -> Result<Self, Error> {
        if !size.is_multiple_of(PAGE_SIZE) || !(2 * IMAGE_BASE..=MEMORY_MAX).contains(&size) {
            return Err(Error::Size(size));
        }
        let allocate = |source| Error::Allocate { size, source };
        let file = memfd(size).map_err(allocate)?;
        let ram = Self::map(file, size, libc::MAP_SHARED)?;
        // SAFETY: advice on a mapping of ours; it changes no content. A host without huge pages for
        // memfds refuses, which is no error.
        unsafe { libc::madvise(ram.host.cast(), size as usize, libc::MADV_HUGEPAGE) };
        Ok(ram)
    }

    /// Memory that begins with the content of `template`, a file whose size a guest can have. Each
    /// page is shared with all other copies of the template until it is written to. That never
    /// changes the template, and nothing else may change it: it must be a sealed memfd.
    ///
    /// # Errors
    /// [`Error::Size`], [`Error::Allocate`].
    pub fn copy_of(template: File) -> Result<Self, Error> {
        let allocate = |source| Error::Allocate { size: 0, source };
        let size = template.metadata().map_err(allocate)?.len();
        if !size.is_multiple_of(PAGE_SIZE) || !(2 * IMAGE_BASE..=MEMORY_MAX).contains(&size) {
            return Err(Error::Size(size));
        }
        let ram = Self::map(template, size, libc::MAP_PRIVATE)?;
        // Unwritten pages are not zero.
        ram.forgot.store(true, Relaxed);
        Ok(ram)
    }

    fn map(file: File, size: u64, how: libc::c_int) -> Result<Self, Error> {
        let allocate = |source| Error::Allocate { size, source };
        let marks = Marks::none(size as usize / PAGE);
        let region = MmapRegionBuilder::new_with_bitmap(size as usize, marks)
            .with_file_offset(FileOffset::new(file, 0))
            .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
            .with_mmap_flags(how | libc::MAP_NORESERVE)
            .build()
            .map_err(|e| allocate(io::Error::other(e)))?;
        let host = region.as_ptr();
        let region = GuestRegionMmap::new(region, GuestAddress(0)).ok_or(Error::Size(size))?;
        let mmap = Mmap::from_regions(vec![region]).map_err(|e| allocate(io::Error::other(e)))?;
        let private = how & libc::MAP_PRIVATE != 0;
        // Opened now: the process may not be able to open files later.
        let pagemap = private.then(|| File::open("/proc/self/pagemap")).transpose();
        let pagemap = pagemap.map_err(allocate)?;
        let (forgot, presence) = Default::default();
        Ok(Self { mmap, host, size, pagemap, forgot, presence })
    }

    /// Size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Number of pages.
    #[must_use]
    pub fn pages(&self) -> usize {
        (self.size / PAGE_SIZE) as usize
    }

    /// Where RAM begins in this process.
    #[must_use]
    pub fn host_address(&self) -> *mut u8 {
        self.host
    }

    /// The memfd.
    #[must_use]
    pub fn file(&self) -> &File {
        let region = self.mmap.find_region(GuestAddress(0)).and_then(|r| r.file_offset());
        region.expect("made from a file").file()
    }

    /// A window of `len` bytes at `address`.
    ///
    /// # Errors
    /// [`Error::Outside`].
    fn window(&self, address: u64, len: usize) -> Result<Slice<'_>, Error> {
        self.mmap
            .get_slice(GuestAddress(address), len)
            .map_err(|_| Error::Outside { address, len: len as u64 })
    }

    /// Copies guest memory out.
    ///
    /// # Errors
    /// [`Error::Outside`].
    pub fn read(&self, address: u64, to: &mut [u8]) -> Result<(), Error> {
        let len = to.len() as u64;
        self.mmap.read_slice(to, GuestAddress(address)).map_err(|_| Error::Outside { address, len })
    }

    /// Copies page number `page` out. While the vCPU runs the copy may be torn; the dirty log then
    /// reports the page again.
    ///
    /// # Errors
    /// [`Error::Outside`].
    pub fn read_page(&self, page: usize, to: &mut [u8; PAGE]) -> Result<(), Error> {
        self.read(page_address(page), to)
    }

    /// Marks `len` bytes at `address` that the VMM wrote without `vm-memory`. Call it **after** the
    /// write: a set taken in between would otherwise lose the page.
    pub fn mark(&self, address: u64, len: usize) {
        self.marks().mark_dirty(address as usize, len);
    }

    /// The pages that the VMM wrote since marks were last [taken](Self::take_marks) or
    /// [forgotten](Self::forget_marks).
    pub(crate) fn look_at_marks(&self) -> PageSet {
        self.marks().look()
    }

    /// The same, and clears the marks.
    pub(crate) fn take_marks(&self) -> PageSet {
        self.forgot.store(true, Relaxed);
        self.marks().take()
    }

    /// Notes that a guest is about to run: its writes leave no marks.
    pub(crate) fn let_guest_write(&self) {
        self.forgot.store(true, Relaxed);
    }

    /// Clears all marks.
    pub(crate) fn forget_marks(&self) {
        self.forgot.store(true, Relaxed);
        drop(self.marks().take());
    }

    /// The control page. What the VMM writes there must be marked with [`mark`](Self::mark); what
    /// the guest writes there is not to be trusted.
    #[must_use]
    pub fn control_page(&self) -> &ControlPage {
        // SAFETY: the page lies inside RAM, whose size was checked to be above IMAGE_BASE, and is
        // aligned; it has only atomics, for which any bit pattern is valid and which the guest may
        // change at any time. The mapping lives as long as `self`.
        unsafe { &*self.host.add(CONTROL_PAGE as usize).cast::<ControlPage>() }
    }

    /// Makes pages resident by one call, where writing to them would take a page fault for each.
    fn make_resident(&self, first: usize, count: usize) {
        debug_assert!(first + count <= self.pages());
        let (at, len) = (first * PAGE, count * PAGE);
        // SAFETY: advice on pages that lie inside the mapping; it changes no content. Whatever the
        // call returns (the host may not support this advice), the writes bring the pages.
        unsafe { libc::madvise(self.host.add(at).cast(), len, libc::MADV_POPULATE_WRITE) };
    }

    fn marks(&self) -> &Marks {
        let region = self.mmap.find_region(GuestAddress(0)).expect("one region from 0");
        MmapRegion::bitmap(region)
    }
}

/// Counts words that were read of bitmaps over all of the memory: see [`words_looked_at`].
pub(crate) fn looked_at(words: usize) {
    #[cfg(debug_assertions)]
    LOOKED_AT.with(|count| count.set(count.get() + words as u64));
    let _ = words;
}

#[cfg(debug_assertions)]
thread_local! {
    static LOOKED_AT: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// How many words of bitmaps with a bit or more for each page of the memory this thread has read.
/// Tests check by it that the work while a guest is stopped does not grow with its memory.
#[cfg(debug_assertions)]
#[must_use]
pub fn words_looked_at() -> u64 {
    LOOKED_AT.with(std::cell::Cell::get)
}

/// Guest-physical address of page number `page`.
#[must_use]
pub const fn page_address(page: usize) -> u64 {
    page as u64 * PAGE_SIZE
}

/// Whether a page holds only zeros.
#[must_use]
pub fn is_zero(page: &[u8; PAGE]) -> bool {
    // The loop compares blocks without a branch inside, so that the compiler vectorizes it and a
    // page that starts with data ends the loop early.
    page.as_chunks::<256>().0.iter().all(|block| block.iter().fold(0, |acc, b| acc | b) == 0)
}

fn memfd(size: u64) -> io::Result<File> {
    // SAFETY: a NUL-terminated name and flags; the result is checked.
    let fd = unsafe { libc::memfd_create(c"vmm-lite-guest".as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor that was just made and has no other owner.
    let file = unsafe { File::from_raw_fd(fd) };
    file.set_len(size)?;
    debug_assert_eq!(file.as_raw_fd(), fd);
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    const MIB: u64 = 1 << 20;

    #[test]
    fn writes_of_the_vmm_are_marked() {
        let ram = GuestRam::new(4 * MIB).unwrap();
        ram.forget_marks();
        ram.writable_while_stopped().write(5 * PAGE_SIZE - 1, &[1, 2]).unwrap();
        ram.writable_while_stopped().slice(9 * PAGE_SIZE, 8).unwrap().copy_from(&[7u8; 8]);
        ram.mark(20 * PAGE_SIZE, 1);
        assert_eq!(ram.look_at_marks().iter().collect::<Vec<_>>(), [4, 5, 9, 20]);
        let set = ram.take_marks();
        assert_eq!(set.iter().collect::<Vec<_>>(), [4, 5, 9, 20]);
        assert!(ram.look_at_marks().is_empty() && ram.take_marks().is_empty());
    }

    #[test]
    fn accesses_outside_of_memory_are_refused() {
        let ram = GuestRam::new(2 * MIB).unwrap();
        assert!(matches!(
            ram.writable_while_stopped().write(2 * MIB - 1, &[0; 2]),
            Err(Error::Outside { .. })
        ));
        assert!(matches!(ram.read(u64::MAX, &mut [0; 2]), Err(Error::Outside { .. })));
        assert!(ram.writable_while_stopped().slice(2 * MIB - 8, 9).is_err());
        assert!(ram.read_page(512, &mut [0; PAGE]).is_err());
        assert!(ram.read_page(511, &mut [0; PAGE]).is_ok());
    }

    #[test]
    fn copies_of_a_template_share_it_and_leave_it_unchanged() {
        let template = memfd(4 * MIB).unwrap();
        template.write_all_at(&[5; PAGE], 10 * PAGE_SIZE).unwrap();
        let copy = || GuestRam::copy_of(template.try_clone().unwrap()).unwrap();
        let (one, other) = (copy(), copy());
        assert_eq!(one.touched().unwrap().iter().collect::<Vec<_>>(), [10]);
        one.writable_while_stopped().write_page(10, &[6; PAGE]).unwrap();
        one.writable_while_stopped().write_page(700, &[7; PAGE]).unwrap();
        one.writable_while_stopped().zero_page(10).unwrap();
        let first = |ram: &GuestRam, page| {
            let mut content = [0; PAGE];
            ram.read_page(page, &mut content).unwrap();
            content[0]
        };
        assert_eq!((first(&one, 10), first(&one, 700)), (0, 7));
        assert_eq!((first(&other, 10), first(&other, 700)), (5, 0));
        assert!(one.touched().unwrap().contains(700));
        assert!(matches!(GuestRam::copy_of(memfd(4 * MIB + 1).unwrap()), Err(Error::Size(_))));
    }

    #[test]
    fn sizes_that_no_guest_can_have_are_refused() {
        for size in [0, 4096, MIB, 4 * MIB + 1, MEMORY_MAX + PAGE_SIZE, u64::MAX] {
            assert!(matches!(GuestRam::new(size), Err(Error::Size(_))), "{size}");
        }
    }

    #[test]
    fn zero_pages_are_distinguished_from_others() {
        let mut page = [0; PAGE];
        assert!(is_zero(&page));
        page[PAGE - 1] = 1;
        assert!(!is_zero(&page));
    }
}
