use super::{super::zone::CHUNK, *};
use alloc::{
    alloc::{alloc, dealloc},
    vec::Vec,
};
use core::cell::{Cell, RefCell};
use proptest::prelude::*;

/// A zone, and what the heap reports of its memory: free memory is filled with a byte that must
/// still be there when it is taken.
struct Memory {
    start: NonNull<u8>,
    layout: Layout,
    zone: RefCell<Zone>,
    /// What is free at first.
    size: usize,
    /// What the heap has, in bytes.
    taken: Cell<usize>,
}

const FREE: u8 = 0xee;

impl Source for &Memory {
    fn zone<R>(&self, f: impl FnOnce(&mut Zone) -> R) -> R {
        f(&mut self.zone.borrow_mut())
    }

    fn taken(&self, from: usize, to: usize) {
        assert!(bytes(from, to).iter().all(|b| *b == FREE), "free memory was written to");
        self.taken.set(self.taken.get() + to - from);
    }

    fn given(&self, from: usize, to: usize) {
        bytes(from, to).fill(FREE);
        self.taken.set(self.taken.get() - (to - from));
    }
}

fn bytes<'a>(from: usize, to: usize) -> &'a mut [u8] {
    let at = core::ptr::with_exposed_provenance_mut::<u8>(from);
    // SAFETY: free memory of this test's zone, used by nothing else while the test reads it.
    unsafe { core::slice::from_raw_parts_mut(at, to - from) }
}

fn memory(size: usize) -> Memory {
    let layout = Layout::from_size_align(size, CHUNK).unwrap();
    // SAFETY: not of size 0.
    let start = NonNull::new(unsafe { alloc(layout) }).unwrap();
    let from = start.as_ptr().expose_provenance();
    // SAFETY: just allocated, and freed after the zone's last use. Not aligned at its start, as the
    // end of an image is not.
    let zone = unsafe { Zone::new(from + 5000, from + size) };
    zone.runs().for_each(|(from, to)| bytes(from, to).fill(FREE));
    let (size, zone, taken) = (zone.unused(), RefCell::new(zone), Cell::new(0));
    Memory { start, layout, zone, size, taken }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout; heaps borrow the memory and end before it.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}

impl Memory {
    /// Takes a chunk, as a stack does.
    fn take_chunk(&self) -> Option<usize> {
        let chunk = self.zone.borrow_mut().take()?;
        (&self).taken(chunk, chunk + CHUNK);
        Some(chunk)
    }

    fn give_chunk(&self, chunk: usize) {
        (&self).given(chunk, chunk + CHUNK);
        // SAFETY: taken, and not used any more.
        unsafe { self.zone.borrow_mut().give(chunk, CHUNK / PAGE) };
    }

    fn unused(&self) -> usize {
        self.zone.borrow().unused()
    }
}

fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).unwrap()
}

/// Fills a block, and finds out whether another wrote into it.
struct Block(NonNull<u8>, Layout, u8);

impl Block {
    fn fill(at: NonNull<u8>, layout: Layout, filling: u8) -> Self {
        assert!(at.as_ptr().addr().is_multiple_of(layout.align()));
        // SAFETY: the block's.
        unsafe { at.as_ptr().write_bytes(filling, layout.size()) };
        Self(at, layout, filling)
    }

    fn is_whole(&self) -> bool {
        // SAFETY: the block's.
        let bytes = unsafe { core::slice::from_raw_parts(self.0.as_ptr(), self.1.size()) };
        bytes.iter().all(|b| *b == self.2)
    }

    fn free(self, heap: &mut Heap<&Memory>) {
        assert!(self.is_whole());
        // SAFETY: allocated with this layout.
        unsafe { heap.free(self.0, self.1) };
    }
}

/// Blocks as programs have them: most are small, some middling, few large, some with an unusual
/// alignment.
fn blocks() -> impl Strategy<Value = Layout> {
    let size = prop_oneof![8 => 1..600_usize, 4 => 600..20_000_usize, 1 => 20_000..300_000_usize];
    let align = prop_oneof![8 => 0..5_u32, 1 => 5..14_u32];
    (size, align).prop_map(|(size, align)| layout(size, 1 << align))
}

#[derive(Clone, Debug)]
enum Step {
    Take(Layout, u8),
    Free(usize),
    /// That many chunks for stacks.
    Stacks(usize),
    /// All stacks but that many end.
    End(usize, usize),
    Shrink,
}

fn steps(most: usize) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        40 => (blocks(), any::<u8>()).prop_map(|(layout, filling)| Step::Take(layout, filling)),
        36 => any::<usize>().prop_map(Step::Free),
        1 => prop_oneof![0..20_usize, Just(usize::MAX)].prop_map(Step::Stacks),
        2 => (0..3_usize, any::<usize>()).prop_map(|(left, which)| Step::End(left, which)),
        1 => Just(Step::Shrink),
    ];
    proptest::collection::vec(step, 1..most)
}

/// A heap under a mixed load, and stacks beside it.
struct Load<'a> {
    memory: &'a Memory,
    heap: Heap<&'a Memory>,
    blocks: Vec<Block>,
    stacks: Vec<usize>,
}

impl<'a> Load<'a> {
    fn new(memory: &'a Memory) -> Self {
        Self { memory, heap: Heap::new(memory), blocks: Vec::new(), stacks: Vec::new() }
    }

    fn live(&self) -> usize {
        self.blocks.iter().map(|b| b.1.size()).sum::<usize>() + self.stacks.len() * CHUNK
    }

    /// Makes a step; false when there was no memory for it.
    fn step(&mut self, step: Step) -> bool {
        match step {
            Step::Take(layout, filling) => {
                let Some(at) = self.heap.allocate(layout, 0) else { return false };
                self.blocks.push(Block::fill(at, layout, filling));
            }
            Step::Free(which) if !self.blocks.is_empty() => {
                let block = self.blocks.swap_remove(which % self.blocks.len());
                block.free(&mut self.heap);
            }
            Step::Free(_) => {}
            Step::Stacks(count) => {
                for _ in 0..count {
                    let Some(chunk) = self.memory.take_chunk() else { return false };
                    self.stacks.push(chunk);
                }
            }
            Step::End(left, which) => {
                while self.stacks.len() > left {
                    let chunk = self.stacks.swap_remove(which % self.stacks.len());
                    self.memory.give_chunk(chunk);
                }
            }
            Step::Shrink => {
                self.heap.shrink();
            }
        }
        true
    }

    /// Frees all, and finds out whether all of it serves for one block, and for stacks.
    fn end(mut self) {
        self.step(Step::End(0, 0));
        while let Some(block) = self.blocks.pop() {
            block.free(&mut self.heap);
        }
        assert_eq!(self.heap.used(), 0);
        let all = layout(self.memory.size, 8);
        let block = self.heap.allocate(all, 0).expect("all is free, and in one piece");
        assert_eq!((self.memory.unused(), self.heap.free_bytes()), (0, 0));
        Block::fill(block, all, 1).free(&mut self.heap);
        while self.step(Step::Stacks(1)) {}
        assert!(self.memory.unused() < 2 * CHUNK, "stacks have had the rest");
    }
}

proptest! {
    /// Blocks are apart; what is free is not written to; what is not free is what the heap reported
    /// that it took; and when all has been freed, in whatever order, all of it is there for one
    /// block.
    #[test]
    fn blocks_are_apart_and_come_back(steps in steps(400)) {
        let memory = memory(1 << 20);
        let mut load = Load::new(&memory);
        for step in steps {
            load.step(step);
            prop_assert_eq!(memory.taken.get(), memory.size - memory.unused());
        }
        load.end();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// With a quarter of the memory in use there is room for a block of a sixteenth of it, whatever
    /// was in use before: stacks that had all of it, and of which some are still there; blocks that
    /// had all of it.
    #[test]
    fn a_mixed_load_leaves_room_for_a_large_block(steps in steps(4000)) {
        const SIZE: usize = 8 << 20;
        let memory = memory(SIZE);
        let mut load = Load::new(&memory);
        for (n, step) in steps.into_iter().enumerate() {
            load.step(step);
            if n % 16 != 0 {
                continue;
            }
            while load.live() > SIZE / 4 {
                if load.stacks.len() > 2 {
                    load.step(Step::End(2, n));
                } else {
                    load.step(Step::Free(n));
                }
            }
            let large = layout(SIZE / 16, 8);
            let Some(at) = load.heap.allocate(large, 0) else {
                let largest = memory.zone.borrow().runs().map(|(from, to)| to - from).max();
                return Err(TestCaseError::fail(alloc::format!(
                    "{} live, {} unused, the largest run {largest:?}", load.live(), memory.unused()
                )));
            };
            // SAFETY: just allocated with this layout.
            unsafe { load.heap.free(at, large) };
        }
        load.end();
    }
}

#[test]
fn small_blocks_find_room_where_no_slab_does() {
    let memory = memory(1 << 20);
    let mut load = Load::new(&memory);
    // Every other chunk is a stack's for good, then every other page is a block's.
    while load.step(Step::Stacks(1)) {}
    let freed: Vec<usize> = load.stacks.iter().copied().step_by(2).collect();
    load.stacks.retain(|chunk| !freed.contains(chunk));
    freed.iter().for_each(|chunk| memory.give_chunk(*chunk));
    let mut pages = Vec::new();
    while let Some(page) = load.heap.allocate(layout(PAGE, PAGE), 0) {
        pages.push(Block::fill(page, layout(PAGE, PAGE), 1));
    }
    let mut n = 0;
    while n < pages.len() {
        pages.swap_remove(n).free(&mut load.heap);
        n += 2;
    }
    load.blocks.append(&mut pages);
    let unused = memory.unused();
    assert!(unused > 100 << 10, "{unused}");
    for size in [16, 700, 4096] {
        assert!(load.step(Step::Take(layout(size, 8), 2)), "{size} bytes of {unused}");
    }
    assert!(load.step(Step::Take(layout(100, 256), 2)));
    assert!(!load.step(Step::Take(layout(5 * PAGE, 8), 2)));
    load.end();
}

#[test]
fn an_exhausted_heap_fails_and_recovers() {
    let memory = memory(1 << 20);
    let mut heap = Heap::new(&memory);
    let large = layout(100 << 10, 8);
    let blocks: Vec<_> = core::iter::from_fn(|| heap.allocate(large, 0)).collect();
    assert!(blocks.len() >= 9, "{} of 10", blocks.len());
    assert_eq!(heap.allocate(layout(isize::MAX as usize - 7, 8), 0), None);
    // SAFETY: allocated above with this layout.
    blocks.into_iter().for_each(|b| unsafe { heap.free(b, large) });
    assert!(heap.allocate(layout(1000 << 10, 8), 0).is_some());
}

#[test]
fn the_reserve_is_kept() {
    let memory = memory(1 << 20);
    let mut heap = Heap::new(&memory);
    let keep = 300 << 10;
    for size in [1000, 12_000, 20_000] {
        while heap.allocate(layout(size, 8), keep).is_some() {}
        assert!(memory.unused() >= keep);
    }
    // In one piece, as nothing but the heap has taken any.
    let kept = heap.allocate(layout(keep, 8), 0).unwrap();
    // SAFETY: just allocated with this layout.
    unsafe { heap.free(kept, layout(keep, 8)) };
    assert!(heap.allocate(layout(1000, 8), 0).is_some());
}

#[test]
fn a_block_serves_for_all_sizes_of_its_class() {
    let fits = |old, new| Heap::<&Memory>::fits_in_place(layout(old, 8), new);
    assert!(fits(100, 112));
    assert!(!fits(100, 113));
    assert!(!fits(100, 90));
    assert!(!fits(10_000, 10_001), "an arena's block has its size");
    assert!(fits(100_000, 102_400), "25 pages");
    assert!(!fits(100_000, 102_401));
    assert!(!fits(10_000, 100_000));
}
