//! Memory that is shared with the device: whole pages, at the address by which the device uses
//! them.

use alloc::alloc::{Layout, alloc_zeroed, dealloc};
use core::ptr::NonNull;

/// Size of a page.
pub const PAGE: usize = 4096;

/// Pages, zeroed at first. The device reads and writes them while the driver holds them, so all
/// access is by raw pointer, and no reference is made to what the device has at that time.
#[derive(Debug)]
pub struct Shared {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: it owns its pages, as a box would.
unsafe impl Send for Shared {}

impl Shared {
    /// At least `len` bytes; `None` without memory.
    pub fn new(len: usize) -> Option<Self> {
        let layout = Layout::from_size_align(len.max(1).next_multiple_of(PAGE), PAGE).ok()?;
        // SAFETY: the size is not 0.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        Some(Self { start, layout })
    }

    /// Its size, bytes.
    pub fn len(&self) -> usize {
        self.layout.size()
    }

    /// A pointer to the byte at `offset`.
    ///
    /// # Panics
    /// When fewer than `len` bytes follow.
    pub fn at(&self, offset: usize, len: usize) -> *mut u8 {
        assert!(offset.checked_add(len).is_some_and(|end| end <= self.len()));
        // SAFETY: inside the pages, as just checked.
        unsafe { self.start.as_ptr().add(offset) }
    }

    /// The address of the byte at `offset` for the device: guests map memory where it is.
    pub fn physical(&self, offset: usize) -> u64 {
        self.at(offset, 0) as u64
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout; the device has been reset before.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}
