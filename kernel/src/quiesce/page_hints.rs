//! Page hints for as long as the guest is quiescent: stacks below what is in use of them, and
//! network buffers without a packet.

use crate::{
    cpu::KernelCell,
    mm::{self, page_hints, page_hints::bitmap::PAGE},
    net, sched,
};

/// Most ranges that are hinted at a time; pages beyond are transferred though they need not be.
const MOST: usize = 256;

/// What [`clear`] takes back.
struct Hints {
    ranges: [(usize, usize); MOST],
    count: usize,
}

static HINTS: KernelCell<Hints> = KernelCell::new(Hints { ranges: [(0, 0); MOST], count: 0 });

/// Hints what need not be kept from now until [`clear`].
pub(super) fn set() {
    HINTS.with(|Hints { ranges, count }| {
        let mut hint = |from: usize, to: usize| {
            if *count < MOST {
                page_hints::set(from, to);
                ranges[*count] = (from.next_multiple_of(PAGE), to & !(PAGE - 1));
                *count += 1;
            }
        };
        // Nothing uses what lies below a waiting thread's stack pointer.
        sched::each_waiting_stack(|stack, sp| stack.each_frame_below(sp, &mut hint));
        mm::stacks::each_idle(|stack| {
            stack.each_frame_below(stack.top(), &mut hint);
        });
        net::empty_pages(|page| hint(page, page + PAGE));
    });
}

/// Takes the hints of [`set`] back.
pub(super) fn clear() {
    HINTS.with(|hints| {
        for (from, to) in &hints.ranges[..hints.count] {
            page_hints::clear(*from, (*to).max(*from));
        }
        hints.count = 0;
    });
}
