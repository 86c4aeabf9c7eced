//! The heap: size classes in front of `linked_list_allocator`.
//!
//! Small blocks come from lists of equal blocks, which makes `malloc` and `free` a few instructions; the list allocator
//! behind them, whose search is linear, sees only slabs and large blocks. It grows towards the frames by [`Heap::grow`].

use core::{alloc::Layout, ptr::NonNull};

use linked_list_allocator::Heap as ListHeap;

/// Sizes of the small blocks, in bytes.
const CLASSES: [usize; 14] = [16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048];
/// What is carved into small blocks at a time.
const SLAB: usize = 16 << 10;
/// Least step by which the heap grows.
const STEP: usize = 128 << 10;

#[repr(C)]
struct FreeBlock {
    next: Option<NonNull<FreeBlock>>,
}

/// The allocator. All memory it hands out lies in `[start, end)`, and `end` moves up as far as `limit` lets it.
pub struct Heap {
    list: ListHeap,
    classes: [Option<NonNull<FreeBlock>>; CLASSES.len()],
    end: usize,
    limit: usize,
    used: usize,
}

impl core::fmt::Debug for Heap {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Heap")
            .field("end", &self.end)
            .field("limit", &self.limit)
            .field("used", &self.used)
            .finish_non_exhaustive()
    }
}

// SAFETY: the pointers lead into memory that belongs to the heap alone; there is one vCPU.
unsafe impl Send for Heap {}

impl Heap {
    /// An allocator without memory.
    #[must_use]
    pub const fn empty() -> Self {
        Self { list: ListHeap::empty(), classes: [None; CLASSES.len()], end: 0, limit: 0, used: 0 }
    }

    /// Gives it `[start, limit)`, of which it takes more only as needed.
    ///
    /// # Safety
    /// The memory must be writable and nobody else's for as long as the heap lives, but for what [`Self::lower_limit`] gives back.
    pub unsafe fn init(&mut self, start: usize, limit: usize) {
        let first = STEP.min(limit - start);
        // SAFETY: as the caller promises.
        unsafe { self.list.init(start as *mut u8, first) };
        self.end = start + first;
        self.limit = limit;
    }

    /// Allocates; `None` when memory is exhausted.
    pub fn allocate(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        let block = match class_of(layout) {
            Some(class) => self.small(class)?,
            None => self.large(layout)?,
        };
        self.used += footprint(layout);
        Some(block)
    }

    /// Takes a block back.
    ///
    /// # Safety
    /// `block` must come from [`Self::allocate`] with this layout and not have been freed.
    pub unsafe fn free(&mut self, block: NonNull<u8>, layout: Layout) {
        self.used -= footprint(layout);
        match class_of(layout) {
            Some(class) => {
                let free = block.cast::<FreeBlock>();
                // SAFETY: the block is ours again and at least 16 bytes, 16-byte aligned.
                unsafe { free.write(FreeBlock { next: self.classes[class] }) };
                self.classes[class] = Some(free);
            }
            // SAFETY: as the caller promises; large blocks come from the list.
            None => unsafe { self.list.deallocate(block, layout) },
        }
    }

    /// Whether growing from `old` to `new` bytes needs no move.
    #[must_use]
    pub fn fits_in_place(old: Layout, new_size: usize) -> bool {
        matches!(class_of(old), Some(class) if new_size <= CLASSES[class])
    }

    /// Whether `new_size` belongs into a smaller class than `old`'s.
    #[must_use]
    pub fn fits_smaller(old: Layout, new_size: usize) -> bool {
        Layout::from_size_align(new_size, old.align())
            .is_ok_and(|new| class_of(new) != class_of(old))
    }

    /// Bytes handed out.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used
    }

    /// Where the heap ends; what lies between here and the limit has never been used.
    #[must_use]
    pub fn end(&self) -> usize {
        self.end
    }

    /// Where it must stop growing.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Gives up the memory above `limit`, if the heap has not grown there.
    pub fn lower_limit(&mut self, limit: usize) -> bool {
        let can = limit >= self.end;
        if can {
            self.limit = limit;
        }
        can
    }

    fn small(&mut self, class: usize) -> Option<NonNull<u8>> {
        if self.classes[class].is_none() {
            self.refill(class)?;
        }
        let block = self.classes[class]?;
        // SAFETY: a block on a free list is ours and holds a `FreeBlock`.
        self.classes[class] = unsafe { block.as_ref() }.next;
        Some(block.cast())
    }

    fn refill(&mut self, class: usize) -> Option<()> {
        let size = CLASSES[class];
        let slab = Layout::from_size_align(SLAB, 16).ok()?;
        let start = self.large(slab)?;
        for n in (0..SLAB / size).rev() {
            // SAFETY: the block lies inside the slab, which nobody else has.
            let block = unsafe { start.add(n * size) }.cast::<FreeBlock>();
            // SAFETY: likewise, and it is 16-byte aligned as all sizes are multiples of 16.
            unsafe { block.write(FreeBlock { next: self.classes[class] }) };
            self.classes[class] = Some(block);
        }
        Some(())
    }

    fn large(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        if let Ok(block) = self.list.allocate_first_fit(layout) {
            return Some(block);
        }
        self.grow(layout.size().checked_add(layout.align())?)?;
        self.list.allocate_first_fit(layout).ok()
    }

    fn grow(&mut self, size: usize) -> Option<()> {
        let room = self.limit - self.end;
        let step = size.checked_add(64)?.max(STEP).checked_next_multiple_of(4096)?;
        // Near the end, what is left may still do.
        let step =
            if step > room { size.checked_add(64)?.checked_next_multiple_of(4096)? } else { step };
        if step > room {
            return None;
        }
        // SAFETY: `[end, end + step)` lies below the limit and so is ours.
        unsafe { self.list.extend(step) };
        self.end += step;
        Some(())
    }
}

fn class_of(layout: Layout) -> Option<usize> {
    if layout.align() > 16 {
        return None;
    }
    CLASSES.iter().position(|&size| layout.size() <= size)
}

fn footprint(layout: Layout) -> usize {
    class_of(layout).map_or(layout.size(), |class| CLASSES[class])
}
