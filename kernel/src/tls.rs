//! Thread-local storage, variant II: the template's copy lies below the thread pointer, which points at itself.

use alloc::alloc::{alloc_zeroed, dealloc};
use core::{alloc::Layout, ptr};

use crate::image;

/// One thread's block.
#[derive(Debug)]
pub struct Tls {
    block: *mut u8,
    layout: Layout,
    pointer: usize,
}

// SAFETY: a block is its thread's; the scheduler only moves the handle.
unsafe impl Send for Tls {}

impl Tls {
    /// A fresh copy of the template. `None` without memory.
    pub fn new() -> Option<Self> {
        let template = image::tls();
        let (size, align) =
            template.map_or((0, 16), |t| (t.memory_size as usize, (t.align as usize).max(16)));
        let before = size.next_multiple_of(align);
        let layout = Layout::from_size_align(before + 16, align).ok()?;
        // SAFETY: the layout is not empty.
        let block = unsafe { alloc_zeroed(layout) };
        if block.is_null() {
            return None;
        }
        // SAFETY: inside the block, aligned to 16.
        let pointer = unsafe { block.add(before) };
        // SAFETY: as above; the copy ends at the pointer, as the linker counts offsets down from there.
        unsafe {
            pointer.cast::<usize>().write(pointer as usize);
            if let Some(t) = template {
                let from = t.address as usize as *const u8;
                ptr::copy_nonoverlapping(from, pointer.sub(before), t.file_size as usize);
            }
        }
        Some(Self { block, layout, pointer: pointer as usize })
    }

    /// What FS must hold.
    pub fn pointer(&self) -> usize {
        self.pointer
    }
}

impl Drop for Tls {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout.
        unsafe { dealloc(self.block, self.layout) };
    }
}
