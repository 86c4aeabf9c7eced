//! Memory: the heap that grows up, the frames of stacks that are taken from the top down, and the stacks themselves.

pub mod frames;
pub mod heap;
pub mod stacks;

use core::{
    alloc::Layout,
    ptr::{self, NonNull},
};

use crate::cell::KernelCell;
use frames::Frames;
use heap::Heap;

/// The memory of the guest that is not the image's.
#[derive(Debug)]
pub struct Memory {
    /// What `malloc` gives out.
    pub heap: Heap,
    /// What stacks are made of.
    pub frames: Frames,
}

/// All of it.
pub static MEMORY: KernelCell<Memory> =
    KernelCell::new(Memory { heap: Heap::empty(), frames: Frames::empty() });

/// Gives `[start, end)` to the heap and the frames.
///
/// # Safety
/// The memory must be mapped writable and nobody else's, for good.
pub unsafe fn init(start: usize, end: usize) {
    MEMORY.with(|m| {
        // SAFETY: as the caller promises.
        unsafe { m.heap.init(start, end) };
        m.frames = Frames::below(end);
    });
}

/// Allocates, or returns null.
#[must_use]
pub fn allocate(layout: Layout) -> *mut u8 {
    if layout.size() == 0 {
        return ptr::without_provenance_mut(layout.align());
    }
    MEMORY.with(|m| m.heap.allocate(layout)).map_or(ptr::null_mut(), NonNull::as_ptr)
}

/// Frees.
///
/// # Safety
/// `block` must come from [`allocate`] with this layout and not have been freed.
pub unsafe fn free(block: *mut u8, layout: Layout) {
    if layout.size() == 0 {
        return;
    }
    if let Some(block) = NonNull::new(block) {
        // SAFETY: as the caller promises.
        MEMORY.with(|m| unsafe { m.heap.free(block, layout) });
    }
}

/// Reallocates, or returns null and leaves the block as it is.
///
/// # Safety
/// As [`free`]; the layout with `new_size` must be valid.
pub unsafe fn reallocate(block: *mut u8, old: Layout, new_size: usize) -> *mut u8 {
    if old.size() != 0 && Heap::fits_in_place(old, new_size) && !Heap::fits_smaller(old, new_size) {
        return block;
    }
    let Ok(layout) = Layout::from_size_align(new_size, old.align()) else { return ptr::null_mut() };
    let new = allocate(layout);
    if !new.is_null() {
        // SAFETY: both are valid for the smaller of both sizes and do not overlap.
        unsafe { ptr::copy_nonoverlapping(block, new, old.size().min(new_size)) };
        // SAFETY: as the caller promises.
        unsafe { free(block, old) };
    }
    new
}
