//! The guest's memory: one zone, one heap, for the program and for the kernel.

use core::{
    alloc::{GlobalAlloc, Layout},
    ptr::{self, NonNull},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use super::{
    heap::{Heap, Source},
    page_hints, stacks,
    zone::{CHUNK, PAGE, Zone},
};
use crate::{arch::cpu, cpu::KernelCell};

static ZONE: KernelCell<Zone> = KernelCell::new(Zone::empty());
static HEAP: KernelCell<Heap<GlobalZone>> = KernelCell::new(Heap::new(GlobalZone));

/// What is left when the program's heap has used up all else: stacks grow there, and the kernel
/// does its work.
static KEPT: AtomicUsize = AtomicUsize::new(0);
const KEEP_LEAST: usize = 64 << 10;
const KEEP_MOST: usize = 1 << 20;

/// The zone as the heap's source.
#[derive(Debug)]
pub struct GlobalZone;

impl Source for GlobalZone {
    fn zone<R>(&self, f: impl FnOnce(&mut Zone) -> R) -> R {
        zone(f)
    }

    fn taken(&self, from: usize, to: usize) {
        page_hints::clear(from, to);
    }

    fn given(&self, from: usize, to: usize) {
        page_hints::set(from, to);
    }
}

/// Gives `[start, end)` to the heap and to stacks.
///
/// # Safety
/// It is writable, and nothing else ever uses it.
pub unsafe fn init(start: usize, end: usize) {
    // SAFETY: as the caller promises.
    ZONE.with(|z| *z = unsafe { Zone::new(start, end) });
    KEPT.store(((end - start) / 32).clamp(KEEP_LEAST, KEEP_MOST), Relaxed);
}

/// Lends the zone to `f`, which is short and calls nothing else.
///
/// The handler of page faults needs the zone whatever the kernel was doing, so it must not be lent
/// out when a stack grows: the stack that `f` needs is committed before.
pub fn zone<R>(f: impl FnOnce(&mut Zone) -> R) -> R {
    cpu::touch_stack();
    ZONE.with(f)
}

/// Takes a chunk for a stack.
pub(super) fn take_chunk() -> Option<usize> {
    let chunk = zone(Zone::take)?;
    page_hints::clear(chunk, chunk + CHUNK);
    Some(chunk)
}

/// Takes a stack's chunk back.
///
/// # Safety
/// It came from [`take_chunk`], and nothing uses it any more.
pub(super) unsafe fn give_chunk(chunk: usize) {
    // Before it can be taken again.
    page_hints::set(chunk, chunk + CHUNK);
    // SAFETY: as the caller promises.
    zone(|z| unsafe { z.give(chunk, CHUNK / PAGE) });
}

/// Returns to the zone what the heap has and does not use; false if there was nothing.
pub fn shrink() -> bool {
    HEAP.with(Heap::shrink)
}

/// Allocates for the program, or returns null. What is of size 0 is not null either.
#[inline]
#[must_use]
pub fn allocate(layout: Layout) -> *mut u8 {
    allocate_but(layout, KEPT.load(Relaxed))
}

#[inline]
fn allocate_but(layout: Layout, keep: usize) -> *mut u8 {
    if layout.size() == 0 {
        return ptr::without_provenance_mut(layout.align());
    }
    let mut block = HEAP.with(|h| h.allocate(layout, keep));
    if block.is_none() && stacks::release_idle() {
        block = HEAP.with(|h| h.allocate(layout, keep));
    }
    block.map_or(ptr::null_mut(), NonNull::as_ptr)
}

/// Frees. Null is ignored.
///
/// # Safety
/// `block` is null, or came from here with this layout and nothing uses it any more.
#[inline]
pub unsafe fn free(block: *mut u8, layout: Layout) {
    if layout.size() == 0 {
        return;
    }
    if let Some(block) = NonNull::new(block) {
        // SAFETY: as the caller promises.
        HEAP.with(|h| unsafe { h.free(block, layout) });
    }
}

/// Reallocates for the program, or returns null and leaves the block as it is.
///
/// # Safety
/// As for [`free`].
pub unsafe fn reallocate(block: *mut u8, old: Layout, new_size: usize) -> *mut u8 {
    // SAFETY: as the caller promises.
    unsafe { reallocate_but(block, old, new_size, KEPT.load(Relaxed)) }
}

unsafe fn reallocate_but(block: *mut u8, old: Layout, new_size: usize, keep: usize) -> *mut u8 {
    if old.size() != 0 && Heap::<GlobalZone>::fits_in_place(old, new_size) {
        return block;
    }
    let Ok(layout) = Layout::from_size_align(new_size, old.align()) else {
        return ptr::null_mut();
    };
    let new = allocate_but(layout, keep);
    if !new.is_null() {
        // SAFETY: both hold the smaller of both sizes, and are apart.
        unsafe { ptr::copy_nonoverlapping(block, new, old.size().min(new_size)) };
        // SAFETY: as the caller promises.
        unsafe { free(block, old) };
    }
    new
}

/// The kernel's own allocations come from the same heap, and from what is kept.
struct Global;

// SAFETY: `HEAP` hands out memory as `GlobalAlloc` asks.
unsafe impl GlobalAlloc for Global {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        allocate_but(layout, 0)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { free(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: as the caller promises.
        unsafe { reallocate_but(block, layout, new_size, 0) }
    }
}

#[global_allocator]
static GLOBAL: Global = Global;

/// Bytes in use, and bytes that are not.
#[must_use]
pub fn usage() -> (usize, usize) {
    let unused = zone(|z| z.unused());
    HEAP.with(|h| (h.used(), h.free_bytes() + unused))
}
