//! The guest's page hints.

use alloc::alloc::alloc_zeroed;
use core::{
    alloc::Layout,
    ptr, slice,
    sync::atomic::{AtomicPtr, AtomicU8, AtomicUsize, Ordering::Relaxed},
};

use super::bitmap::{Bitmap, PAGE};
use crate::mm;

/// The bitmap, null if there is none. Not in a cell: a stack may grow whatever the kernel does.
static BITMAP: AtomicPtr<AtomicU8> = AtomicPtr::new(ptr::null_mut());
static LEN: AtomicUsize = AtomicUsize::new(0);

/// Makes the bitmap for `memory` bytes of RAM and hints what is free. Returns its address and its
/// length in bytes; `None` if there is no memory for it: then there are no hints.
pub fn init(memory: usize) -> Option<(u64, u64)> {
    let len = Bitmap::len_for(memory);
    let layout = Layout::from_size_align(len.next_multiple_of(PAGE), PAGE).ok()?;
    // SAFETY: not of size 0: the guest has memory.
    let at = unsafe { alloc_zeroed(layout) };
    if at.is_null() {
        return None;
    }
    // Nothing is allocated meanwhile.
    mm::zone(|zone| {
        LEN.store(len, Relaxed);
        BITMAP.store(at.cast(), Relaxed);
        zone.runs().for_each(|(from, to)| set(from, to));
    });
    Some((at.addr() as u64, len as u64))
}

fn with_bitmap(f: impl FnOnce(Bitmap<'_>)) {
    let at = BITMAP.load(Relaxed);
    if !at.is_null() {
        // SAFETY: allocated by `init` for this alone, zeroed, and for good.
        f(Bitmap(unsafe { slice::from_raw_parts(at, LEN.load(Relaxed)) }));
    }
}

/// Hints the pages that lie in `[from, to)` as a whole: their content need not be kept.
pub fn set(from: usize, to: usize) {
    with_bitmap(|bitmap| bitmap.set(from, to));
}

/// Takes back the hint of pages that have any part in `[from, to)`.
pub fn clear(from: usize, to: usize) {
    with_bitmap(|bitmap| bitmap.clear(from, to));
}
