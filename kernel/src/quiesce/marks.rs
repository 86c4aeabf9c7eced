//! Which pages do not matter: memory that nobody has, for as long as nobody needs it; and, while the guest is quiescent, stacks below what is in use of them and
//! network buffers without a packet.

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

/// Most ranges that are marked for as long as the guest is quiescent; what is beyond is sent though it need not be.
const MOST: usize = 256;

struct Marks {
    bitmap: Option<NonNull<u8>>,
    len: usize,
    /// What [`clear`] is to unmark.
    ranges: [(usize, usize); MOST],
    count: usize,
}

// SAFETY: memory of the kernel's own, for good.
unsafe impl Send for Marks {}

static MARKS: KernelCell<Marks> =
    KernelCell::new(Marks { bitmap: None, len: 0, ranges: [(0, 0); MOST], count: 0 });

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
    if let Some(at) = bitmap {
        control.dont_care_len.store(len as u64, SeqCst);
        control.dont_care.store(at.as_ptr().addr() as u64, SeqCst);
    }
}

fn with_bitmap(f: impl FnOnce(&mut Bitmap<'_>, &mut Marks)) {
    MARKS.with(|m| {
        let Some(at) = m.bitmap else { return };
        // SAFETY: allocated by `init` for this alone.
        f(&mut Bitmap(unsafe { slice::from_raw_parts_mut(at.as_ptr(), m.len) }), m);
    });
}

/// Puts free memory aside until it is needed, and marks it.
pub(super) fn give_up() {
    with_bitmap(|bitmap, _| mm::heap(|heap| heap.give_up(|from, to| bitmap.mark(from, to))));
}

/// Memory that was given up is about to be used.
pub(super) fn wanted_again(from: usize, to: usize) {
    with_bitmap(|bitmap, _| bitmap.unmark(from, to));
}

/// Marks what does not matter from now until [`clear`].
pub(super) fn set() {
    with_bitmap(|bitmap, m| {
        let (ranges, count) = (&mut m.ranges, &mut m.count);
        let mut mark = |from: usize, to: usize| {
            if *count < MOST {
                bitmap.mark(from, to);
                ranges[*count] = (from.next_multiple_of(PAGE), to & !(PAGE - 1));
                *count += 1;
            }
        };
        mm::zone(|zone| {
            let (from, to) = zone.untouched();
            mark(from, to);
            // A free chunk begins with the address of the next.
            zone.free_chunks().for_each(|chunk| mark(chunk + 8, chunk + CHUNK));
        });
        // What lies below a waiting thread's stack pointer is used by nobody.
        sched::each_waiting_stack(|stack, sp| stack.each_frame_below(sp, &mut mark));
        mm::stacks::each_idle(|stack| {
            stack.each_frame_below(stack.top(), &mut mark);
        });
        net::empty_pages(|page| mark(page, page + PAGE));
    });
}

/// Takes the marks of [`set`] back.
pub(super) fn clear() {
    with_bitmap(|bitmap, m| {
        for (from, to) in &m.ranges[..m.count] {
            bitmap.unmark(*from, (*to).max(*from));
        }
        m.count = 0;
    });
}
