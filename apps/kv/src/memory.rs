//! How much memory is in use, and when that is too much.
//!
//! All of it is counted, exactly, by the allocator: keys, values, tables, buffers. Where memory is
//! small and shared with others (the network stack of a unikernel), the limit alone is not enough,
//! so it is also tried, every now and then, whether the system would still give some.

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

/// What an allocation costs: allocators round up.
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

// SAFETY: all that is asked of a `GlobalAlloc` is passed on to `System`, which is one; counting
// allocates nothing.
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

/// Bytes this thread has allocated and not freed. A thread that freed what others had allocated
/// uses none.
#[must_use]
pub fn used() -> usize {
    usize::try_from(USED.get().cast_signed()).unwrap_or(0)
}

/// The largest block that the system would give now, to within an eighth.
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
    // The compiler may leave out an allocation that nobody uses, and say that it succeeded.
    std::hint::black_box(block);
    given
}

/// How much of what the system has may be used when nobody says: the rest is for the system,
/// buffers and growing tables.
const SHARE_PERCENT: usize = 60;
/// How much memory must be left for a write to be accepted, if no table is so large that it needs
/// more to grow.
const RESERVE: usize = 2 << 20;
/// How much may be allocated between two looks at what is left.
const LOOK_EVERY: usize = 256 << 10;

thread_local! {
    /// Size of the largest table there has been. No table can grow to more than twice this at once.
    static LARGEST_TABLE: Cell<usize> = const { Cell::new(0) };
}

/// A table has this many bytes now.
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

/// Says when memory is short.
#[derive(Debug)]
pub struct Guard {
    /// Bytes; 0 means without limit, like Redis.
    pub limit: usize,
    /// The largest block there was at the start.
    pub system: usize,
    peak: usize,
    left: Left,
    looked_at: usize,
}

impl Guard {
    /// A guard with this limit, or with one derived from the memory there is.
    #[must_use]
    pub fn new(limit: Option<usize>) -> Self {
        let system = largest_block();
        let limit = limit.unwrap_or(system / 100 * SHARE_PERCENT);
        Self { limit, system, peak: 0, left: Left::Plenty, looked_at: used() }
    }

    /// The most that was in use when it was looked at.
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

    /// Whether there is not even memory for buffers. The limit is for data: it does not count here.
    pub fn is_exhausted(&mut self) -> bool {
        self.left() == Left::Nothing
    }

    /// What was seen last, unless much has changed since, or it was little.
    fn left(&mut self) -> Left {
        if self.left != Left::Plenty || used().abs_diff(self.looked_at) >= LOOK_EVERY {
            self.look();
        }
        self.left
    }

    /// Looks how much is left. Others use the same memory, which nobody counts here.
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
    fn a_limit_is_derived_from_what_there_is() {
        let guard = Guard::new(None);
        assert!(guard.limit > 1 << 20 && guard.limit < guard.system);
    }
}
