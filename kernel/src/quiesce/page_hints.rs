//! Which pages do not matter: memory that is free, at all times; and, while the guest is quiescent,
//! stacks below what is in use of them and network buffers without a packet.

use alloc::alloc::alloc_zeroed;
use core::{
    alloc::Layout,
    ptr, slice,
    sync::atomic::{
        AtomicPtr, AtomicU8, AtomicUsize,
        Ordering::{Relaxed, SeqCst},
    },
};

use vmm_lite_interface::control::ControlPage;

use crate::{cpu::KernelCell, mm, mm::page_hints::bitmap::Bitmap, net, sched};

const PAGE: usize = 4096;

/// Most ranges that are marked for as long as the guest is quiescent; what is beyond is sent though
/// it need not be.
const MOST: usize = 256;

/// What [`clear`] is to unmark.
struct Marks {
    ranges: [(usize, usize); MOST],
    count: usize,
}

static MARKS: KernelCell<Marks> = KernelCell::new(Marks { ranges: [(0, 0); MOST], count: 0 });

/// The bitmap, null if there is none. Not in a cell: a stack may grow whatever the kernel does.
static BITMAP: AtomicPtr<AtomicU8> = AtomicPtr::new(ptr::null_mut());
static LEN: AtomicUsize = AtomicUsize::new(0);

/// Makes the bitmap. Without memory for it, pages are sent that need not be.
pub(super) fn init(control: &ControlPage) {
    let len = Bitmap::len_for(control.memory_size.load(Relaxed) as usize);
    let Ok(layout) = Layout::from_size_align(len.next_multiple_of(PAGE), PAGE) else { return };
    // SAFETY: not of size 0: the guest has memory.
    let at = unsafe { alloc_zeroed(layout) };
    if at.is_null() {
        return;
    }
    // Nothing is taken meanwhile.
    mm::zone(|zone| {
        LEN.store(len, Relaxed);
        BITMAP.store(at.cast(), Relaxed);
        with_bitmap(|bitmap| zone.runs().for_each(|(from, to)| bitmap.mark(from, to)));
    });
    control.dont_care_len.store(len as u64, SeqCst);
    control.dont_care.store(at.addr() as u64, SeqCst);
}

fn with_bitmap(f: impl FnOnce(Bitmap<'_>)) {
    let at = BITMAP.load(Relaxed);
    if !at.is_null() {
        // SAFETY: allocated by `init` for this alone, zeroed, and for good.
        f(Bitmap(unsafe { slice::from_raw_parts(at, LEN.load(Relaxed)) }));
    }
}

/// Memory that was free is about to be used.
pub(super) fn taken(from: usize, to: usize) {
    with_bitmap(|bitmap| bitmap.unmark(from, to));
}

/// Memory is about to be free.
pub(super) fn given(from: usize, to: usize) {
    with_bitmap(|bitmap| bitmap.mark(from, to));
}

/// Marks what else does not matter from now until [`clear`].
pub(super) fn set() {
    with_bitmap(|bitmap| {
        MARKS.with(|Marks { ranges, count }| {
            let mut mark = |from: usize, to: usize| {
                if *count < MOST {
                    bitmap.mark(from, to);
                    ranges[*count] = (from.next_multiple_of(PAGE), to & !(PAGE - 1));
                    *count += 1;
                }
            };
            // What lies below a waiting thread's stack pointer is used by nobody.
            sched::each_waiting_stack(|stack, sp| stack.each_frame_below(sp, &mut mark));
            mm::stacks::each_idle(|stack| {
                stack.each_frame_below(stack.top(), &mut mark);
            });
            net::empty_pages(|page| mark(page, page + PAGE));
        });
    });
}

/// Takes the marks of [`set`] back.
pub(super) fn clear() {
    with_bitmap(|bitmap| {
        MARKS.with(|m| {
            for (from, to) in &m.ranges[..m.count] {
                bitmap.unmark(*from, (*to).max(*from));
            }
            m.count = 0;
        });
    });
}
