//! Memory: all sizes and alignments, content kept, memory reused, and refusals that are errors and
//! end nothing.

use crate::check::{Outcome, failed, join};
use crate::{checks, ensure, ensure_eq};
use std::alloc::{Layout, alloc, alloc_zeroed, dealloc};
use std::hint::black_box;
use std::sync::Arc;
use std::thread;

checks!["alloc": sizes, alignments, zeroed, growth_keeps_content, shrink, freed_memory_is_reused,
    from_many_threads,
    zero_sized, reference_counts, impossible_is_refused];

fn sizes() -> Outcome {
    let mut blocks: Vec<(u8, Vec<u8>)> = Vec::new();
    for round in 0..4u8 {
        for size in
            (0..300).chain((9..18).flat_map(|bits| [(1 << bits) - 1, 1 << bits, (1 << bits) + 1]))
        {
            let mark = (size as u8).wrapping_mul(31) ^ round;
            blocks.push((mark, vec![mark; size]));
            if blocks.len().is_multiple_of(3) {
                let (mark, block) = blocks.swap_remove(blocks.len() / 2);
                ensure!(
                    block.iter().all(|&b| b == mark),
                    "a block of {} bytes was overwritten",
                    block.len()
                );
            }
        }
        blocks.truncate(50);
    }
    for (mark, block) in blocks {
        ensure!(
            block.iter().all(|&b| b == mark),
            "a block of {} bytes was overwritten",
            block.len()
        );
    }
    Ok(())
}

fn alignments() -> Outcome {
    for bits in 0..17 {
        for size in [1, 8, 100, 5000] {
            let layout = Layout::from_size_align(size, 1 << bits)?;
            // SAFETY: the size is not zero; the block is written within its size and freed with its
            // own layout.
            unsafe {
                let block = alloc(layout);
                ensure!(!block.is_null(), "no block of {size} aligned to {}", 1 << bits);
                let aligned = block.addr().is_multiple_of(layout.align());
                block.write_bytes(0x5A, size);
                dealloc(block, layout);
                ensure!(aligned, "a block of {size} is not aligned to {}", 1 << bits);
            }
        }
    }
    Ok(())
}

fn zeroed() -> Outcome {
    for size in [1, 24, 500, 4096, 70_000] {
        let layout = Layout::from_size_align(size, 16)?;
        for _ in 0..4 {
            // SAFETY: the size is not zero; the block is used within its size and freed with its
            // own layout.
            let clean = unsafe {
                let block = alloc_zeroed(layout);
                ensure!(!block.is_null(), "no zeroed block of {size}");
                let clean = std::slice::from_raw_parts(block, size).iter().all(|&b| b == 0);
                block.write_bytes(0xFF, size);
                dealloc(block, layout);
                clean
            };
            ensure!(clean, "a zeroed block of {size} was not zero");
        }
    }
    Ok(())
}

fn growth_keeps_content() -> Outcome {
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for n in 0..200_000u32 {
        a.push(n);
        b.push(!n);
    }
    ensure!((0..).zip(&a).all(|(n, &v): (u32, _)| v == n), "the first vector changed as it grew");
    ensure!((0..).zip(&b).all(|(n, &v): (u32, _)| v == !n), "the second vector changed as it grew");
    Ok(())
}

fn shrink() -> Outcome {
    let mut text = "x".repeat(100_000);
    text.truncate(10);
    text.shrink_to_fit();
    ensure_eq!(text, "xxxxxxxxxx");
    Ok(())
}

fn freed_memory_is_reused() -> Outcome {
    // 4 GiB in total: more than a leaking heap could provide in a small VM.
    for n in 0..16_384 {
        black_box(vec![n as u8; 256 * 1024 - 40 * (n % 7)]);
    }
    Ok(())
}

fn from_many_threads() -> Outcome {
    // Blocks allocated in one thread are freed in another.
    let threads: Vec<_> = (0..8u8)
        .map(|t| {
            thread::spawn(move || {
                (0..500usize)
                    .map(|n| {
                        if n % 16 == 0 {
                            thread::yield_now();
                        }
                        vec![t; n]
                    })
                    .collect::<Vec<_>>()
            })
        })
        .collect();
    for (t, thread) in (0u8..).zip(threads) {
        let blocks = join(thread)?;
        ensure!(blocks.iter().flatten().all(|&b| b == t), "a block of thread {t} was overwritten");
    }
    Ok(())
}

fn zero_sized() -> Outcome {
    let units: Vec<()> = std::iter::repeat_n((), 1_000_000).collect();
    ensure_eq!(units.len(), 1_000_000);
    ensure_eq!(Box::<[u8]>::default().len(), 0);
    Ok(())
}

fn impossible_is_refused() -> Outcome {
    let mut bytes: Vec<u8> = Vec::new();
    ensure!(bytes.try_reserve(usize::MAX).is_err(), "more than the address space was granted");
    ensure!(
        bytes.try_reserve(isize::MAX as usize).is_err(),
        "half of the address space was granted"
    );
    ensure!(bytes.try_reserve_exact(1 << 60).is_err(), "2^60 bytes were granted");
    bytes
        .try_reserve(100)
        .map_err(|e| failed(format_args!("after refusals nothing is left: {e}")))?;
    Ok(())
}

fn reference_counts() -> Outcome {
    let shared = Arc::new(vec![1u8; 1000]);
    let weak = Arc::downgrade(&shared);
    let threads: Vec<_> = (0..20)
        .map(|_| {
            thread::spawn({
                let s = Arc::clone(&shared);
                move || s.len()
            })
        })
        .collect();
    for thread in threads {
        ensure_eq!(join(thread)?, 1000);
    }
    ensure_eq!(Arc::strong_count(&shared), 1);
    drop(shared);
    ensure!(weak.upgrade().is_none(), "the value outlived its last owner");
    Ok(())
}
