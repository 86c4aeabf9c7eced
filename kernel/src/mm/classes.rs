//! Sizes of small blocks: steps of 16 bytes up to 128, then four to each doubling. So at most a
//! fifth of a block is lost.

use core::alloc::Layout;

/// How many classes there are.
pub const COUNT: usize = 32;
/// The largest small block.
pub const LARGEST: usize = 8192;
/// The strictest alignment of small blocks.
pub const ALIGN: usize = 64;

/// Size of each class, in bytes.
pub const SIZES: [usize; COUNT] = {
    let mut sizes = [0; COUNT];
    let mut n = 0;
    while n < COUNT {
        sizes[n] = if n < 8 {
            16 * (n + 1)
        } else {
            let doubling = (n - 8) / 4;
            (128 << doubling) + (32 << doubling) * ((n - 8) % 4 + 1)
        };
        n += 1;
    }
    sizes
};

/// The class of each size, by sixteenths.
static CLASS: [u8; LARGEST / 16 + 1] = {
    let mut class = [0; LARGEST / 16 + 1];
    let (mut size, mut n) = (0, 0);
    while size <= LARGEST {
        if size > SIZES[n] {
            n += 1;
        }
        class[size / 16] = n as u8;
        size += 16;
    }
    class
};

/// The class for `layout`; `None` for what is too large or too strictly aligned.
#[inline]
pub fn of(layout: Layout) -> Option<usize> {
    let (mut size, align) = (layout.size(), layout.align());
    if align > 16 {
        if align > ALIGN {
            return None;
        }
        // Blocks lie at multiples of their size from a start that is aligned to 64, so a size that
        // is a multiple of the alignment keeps it.
        size = size.next_multiple_of(align);
    }
    let sixteenths = size.checked_add(15)? / 16;
    CLASS.get(sixteenths).map(|class| usize::from(*class))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_size_has_the_smallest_class_that_holds_it_aligned() {
        assert_eq!(SIZES[COUNT - 1], LARGEST);
        assert!(SIZES.is_sorted());
        for align in [1, 8, 16, 32, 64] {
            for size in 1..=LARGEST {
                let layout = Layout::from_size_align(size, align).unwrap();
                let class = of(layout).unwrap();
                assert!(SIZES[class] >= size, "{size} in {}", SIZES[class]);
                assert!(SIZES[class].is_multiple_of(align), "{layout:?} in {}", SIZES[class]);
                assert!(
                    class == 0 || SIZES[class - 1] < size.next_multiple_of(align),
                    "{layout:?} in {class}"
                );
                assert!(SIZES[class] <= size.next_multiple_of(align.max(16)) * 5 / 4);
            }
        }
        for (size, align) in [(LARGEST + 1, 1), (16, 128), (isize::MAX as usize, 1)] {
            assert_eq!(of(Layout::from_size_align(size, align).unwrap()), None);
        }
    }
}
