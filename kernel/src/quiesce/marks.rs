//! Which pages do not matter while the guest is quiescent: memory that nobody has, and stacks below what is in use of them.

use alloc::alloc::alloc_zeroed;
use core::{
    alloc::Layout,
    ptr::NonNull,
    slice,
    sync::atomic::Ordering::{Relaxed, SeqCst},
};

use vmm_lite_interface::control::ControlPage;

use crate::{
    cell::KernelCell,
    dont_care::Bitmap,
    mm::{self, zone::CHUNK},
    net, sched,
};

const PAGE: usize = 4096;

/// Free memory inside the heap is taken while the guest is quiescent, in pieces of these sizes; so many of each at most.
const PIECES: [(usize, usize); 4] = [(1 << 20, 64), (128 << 10, 32), (16 << 10, 32), (PAGE, 32)];
const MOST: usize = 64 + 32 + 32 + 32;

struct Marks {
    bitmap: Option<NonNull<u8>>,
    len: usize,
    taken: [(usize, usize); MOST],
    count: usize,
}

// SAFETY: memory of the kernel's own, for good.
unsafe impl Send for Marks {}

static MARKS: KernelCell<Marks> =
    KernelCell::new(Marks { bitmap: None, len: 0, taken: [(0, 0); MOST], count: 0 });

/// Makes the bitmap. Without memory for it, pages are sent that need not be.
pub(super) fn init(control: &ControlPage) {
    let len = Bitmap::len_for(control.memory_size.load(Relaxed) as usize);
    let Ok(layout) = Layout::from_size_align(len.next_multiple_of(PAGE), PAGE) else { return };
    // SAFETY: not of size 0: the guest has memory.
    let bitmap = NonNull::new(unsafe { alloc_zeroed(layout) });
    MARKS.with(|m| {
        m.bitmap = bitmap;
        m.len = len;
    });
}

/// Marks what does not matter from now until [`clear`].
pub(super) fn set(control: &ControlPage) {
    MARKS.with(|m| {
        let Some(at) = m.bitmap else { return };
        // SAFETY: allocated by `init` for this alone.
        let mut bitmap = Bitmap(unsafe { slice::from_raw_parts_mut(at.as_ptr(), m.len) });
        for (size, most) in PIECES {
            mm::heap(|heap| {
                heap.take_free(size, most, |block| {
                    let from = block.as_ptr().addr();
                    bitmap.mark(from, from + size);
                    m.taken[m.count] = (block.as_ptr().expose_provenance(), size);
                    m.count += 1;
                })
            });
        }
        mm::zone(|zone| {
            let (from, to) = zone.untouched();
            bitmap.mark(from, to);
            // A free chunk begins with the address of the next.
            zone.free_chunks().for_each(|chunk| bitmap.mark(chunk + 8, chunk + CHUNK));
        });
        // What lies below a waiting thread's stack pointer is used by nobody.
        sched::each_waiting_stack(|stack, sp| stack.each_frame_below(sp, |a, b| bitmap.mark(a, b)));
        mm::stacks::each_idle(|stack| {
            stack.each_frame_below(stack.top(), |from, to| bitmap.mark(from, to));
        });
        net::empty_pages(|page| bitmap.mark(page, page + PAGE));
        control.dont_care.store(at.as_ptr().addr() as u64, SeqCst);
        control.dont_care_len.store(m.len as u64, SeqCst);
    });
}

/// Takes all marks back.
pub(super) fn clear(control: &ControlPage) {
    control.dont_care.store(0, SeqCst);
    control.dont_care_len.store(0, SeqCst);
    MARKS.with(|m| {
        let Some(at) = m.bitmap else { return };
        // SAFETY: allocated by `init` for this alone.
        Bitmap(unsafe { slice::from_raw_parts_mut(at.as_ptr(), m.len) }).clear();
        while m.count > 0 {
            m.count -= 1;
            let (block, size) = m.taken[m.count];
            if let Some(block) = NonNull::new(core::ptr::with_exposed_provenance_mut(block)) {
                // SAFETY: taken by `set` with this size.
                mm::heap(|heap| unsafe { heap.give_free(block, size) });
            }
        }
    });
}
