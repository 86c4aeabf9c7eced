//! How much memory is in use, and when that is too much.
//!
//! The allocator counts all of it exactly: keys, values, tables, buffers. Where memory is small and
//! shared (with the network stack of a unikernel), the limit alone is not enough, so the guard also
//! tries from time to time whether the system can still provide some.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's allocator, counting.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    /// Bytes that this thread allocated and did not free. The server has one thread; counting needs
    /// no atomics.
    static USED: Cell<usize> = const { Cell::new(0) };
}

/// The cost of an allocation: allocators round up.
fn cost(layout: Layout) -> usize {
    (layout.size() + 15) & !15
}

fn add(bytes: usize) {
    // A thread that is ending does not count any more.
    let _ = USED.try_with(|used| used.set(used.get().wrapping_add(bytes)));
}

fn subtract(bytes: usize) {
    let _ = USED.try_with(|used| used.set(used.get().wrapping_sub(bytes)));
}

// SAFETY: every call is passed on to `System`, which is a `GlobalAlloc`; counting allocates
// nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `alloc`.
        let block = unsafe { System.alloc(layout) };
        if !block.is_null() {
            add(cost(layout));
        }
        block
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        let block = unsafe { System.alloc_zeroed(layout) };
        if !block.is_null() {
            add(cost(layout));
        }
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(block, layout) };
        subtract(cost(layout));
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `realloc`.
        let new = unsafe { System.realloc(block, layout, size) };
        if !new.is_null() {
            subtract(cost(layout));
            // SAFETY: the alignment is that of a valid layout, and `realloc`'s contract keeps
            // `size` in bounds.
            add(cost(unsafe { Layout::from_size_align_unchecked(size, layout.align()) }));
        }
        new
    }
}

/// Bytes that this thread has allocated and not freed. Zero for a thread that has freed more than
/// that, which others had allocated.
#[must_use]
pub fn used() -> usize {
    usize::try_from(USED.get().cast_signed()).unwrap_or(0)
}

/// The largest block that the system could provide now, to within an eighth.
#[must_use]
pub fn largest_block() -> usize {
    let mut size = 1 << 46;
    while size > 4096 && !would_give(size) {
        size -= size / 8;
    }
    size
}

fn would_give(bytes: usize) -> bool {
    let mut block = Vec::<u8>::new();
    let given = block.try_reserve_exact(bytes).is_ok();
    // The compiler may remove an unused allocation and assume that it succeeded.
    std::hint::black_box(block);
    given
}

/// Percentage of the system's memory that may be used without an explicit limit: the rest is for
/// the system, buffers and growing tables.
const SHARE_PERCENT: usize = 60;
/// Memory that must be left for a write to be accepted, unless a large table needs more to grow.
const RESERVE: usize = 2 << 20;
/// How much may be allocated between two measurements of the memory left.
const LOOK_EVERY: usize = 256 << 10;

thread_local! {
    /// Size of the largest table so far. No table can grow to more than twice this at once.
    static LARGEST_TABLE: Cell<usize> = const { Cell::new(0) };
}

/// Records that a table has this many bytes.
pub fn note_table(bytes: usize) {
    LARGEST_TABLE.set(LARGEST_TABLE.get().max(bytes));
}

/// How much memory is left.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Debug)]
enum Left {
    /// Enough for all.
    Plenty,
    /// Not enough to store more.
    Little,
    /// Not even enough for buffers.
    Nothing,
}

/// Reports when memory is short.
#[derive(Debug)]
pub struct Guard {
    /// Bytes; 0 means without limit, like Redis.
    pub limit: usize,
    /// The largest block at the start.
    pub system: usize,
    peak: usize,
    left: Left,
    looked_at: usize,
}

impl Guard {
    /// A guard with this limit, or with one derived from the available memory.
    #[must_use]
    pub fn new(limit: Option<usize>) -> Self {
        let system = largest_block();
        let limit = limit.unwrap_or(system / 100 * SHARE_PERCENT);
        Self { limit, system, peak: 0, left: Left::Plenty, looked_at: used() }
    }

    /// The most memory that was in use at any measurement.
    #[must_use]
    pub fn peak(&self) -> usize {
        self.peak.max(used())
    }

    /// Whether a command that may need memory must be refused.
    pub fn is_short(&mut self) -> bool {
        let used = used();
        self.peak = self.peak.max(used);
        (self.limit != 0 && used > self.limit) || self.left() != Left::Plenty
    }

    /// Whether buffers should stay small.
    pub fn is_tight(&mut self) -> bool {
        self.left() != Left::Plenty
    }

    /// Whether there is not even memory for buffers. The limit is for data and does not count here.
    pub fn is_exhausted(&mut self) -> bool {
        self.left() == Left::Nothing
    }

    /// The last measurement, unless much has changed since, or little was left.
    fn left(&mut self) -> Left {
        if self.left != Left::Plenty || used().abs_diff(self.looked_at) >= LOOK_EVERY {
            self.look();
        }
        self.left
    }

    /// Measures the memory left. Others use the same memory, which is not counted here.
    pub fn look(&mut self) {
        self.looked_at = used();
        self.left = if would_give(self.reserve()) {
            Left::Plenty
        } else if would_give(self.reserve() / 2) {
            Left::Little
        } else {
            Left::Nothing
        };
    }

    /// Whether `bytes` more could be stored without getting short.
    #[must_use]
    pub fn allows(&self, bytes: usize) -> bool {
        let within_limit = self.limit == 0 || used().saturating_add(bytes) <= self.limit;
        bytes < 4096 || (within_limit && would_give(bytes.saturating_add(self.reserve())))
    }

    /// Whether a buffer could grow by `bytes`.
    pub fn allows_buffer(&mut self, bytes: usize) -> bool {
        if bytes < LOOK_EVERY / 4 {
            !self.is_exhausted()
        } else {
            would_give(bytes.saturating_add(self.reserve() / 2))
        }
    }

    /// How many bytes one request, or the unsent replies of one client, may take.
    #[must_use]
    pub fn share_of_one_client(&self) -> usize {
        let limit = if self.limit == 0 { self.system } else { self.limit };
        (limit / 2).saturating_sub(used() / 2).max(64 << 10)
    }

    fn reserve(&self) -> usize {
        RESERVE.min(self.system / 8).max(LARGEST_TABLE.get() * 2 + LOOK_EVERY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_allocated_is_counted_until_freed() {
        let _ballast = vec![0u8; 1 << 16];
        let before = used();
        let block = vec![1u8; 1000];
        assert_eq!(used() - before, 1008);
        let grown = {
            let mut b = block;
            b.reserve_exact(4000);
            b
        };
        assert_eq!(used() - before, 5008);
        drop(grown);
        assert_eq!(used(), before);
    }

    #[test]
    fn short_above_the_limit_and_not_below() {
        let _ballast = vec![0u8; 1 << 16];
        let mut guard = Guard::new(Some(used() + 100_000));
        assert!(!guard.is_short());
        let block = vec![0u8; 200_000];
        assert!(guard.is_short());
        drop(block);
        assert!(!guard.is_short());
        assert!(guard.allows(50_000) && !guard.allows(150_000));
    }

    #[test]
    fn a_limit_is_derived_from_the_available_memory() {
        let guard = Guard::new(None);
        assert!(guard.limit > 1 << 20 && guard.limit < guard.system);
    }
}
