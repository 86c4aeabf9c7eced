//! Thread-local storage, variant II: the template's copy lies below the thread pointer, which
//! points at itself.

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
            template.map_or((0, 1), |t| (t.memory_size as usize, (t.align as usize).max(1)));
        // The linker counts offsets down from the pointer by the size rounded up to the template's
        // own alignment.
        let before = size.next_multiple_of(align);
        let block_align = align.max(16);
        let pointer_at = before.next_multiple_of(block_align);
        let layout = Layout::from_size_align(pointer_at + 16, block_align).ok()?;
        // SAFETY: the layout is not empty.
        let block = unsafe { alloc_zeroed(layout) };
        if block.is_null() {
            return None;
        }
        // SAFETY: inside the block, aligned to 16.
        let pointer = unsafe { block.add(pointer_at) };
        // SAFETY: as above; `before` is not more than `pointer_at`, and the template's content not
        // longer than `before`.
        unsafe {
            pointer.cast::<usize>().write(pointer.expose_provenance());
            if let Some(t) = template {
                let from = ptr::with_exposed_provenance::<u8>(t.address as usize);
                ptr::copy_nonoverlapping(from, pointer.sub(before), t.file_size as usize);
            }
        }
        let pointer = pointer.addr();
        Some(Self { block, layout, pointer })
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
