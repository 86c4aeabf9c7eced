//! Vector registers: they compute correctly, and each thread keeps its own across switches.

use crate::check::{Outcome, join, skip};
use crate::{checks, ensure, ensure_eq};
use std::hint::black_box;
use std::thread;

checks!["simd": baseline, avx2, kept_across_switches, rounding_mode_is_nearest];

fn scalar(a: &[f32], b: &[f32]) -> f32 {
    // Eight sums, in the order in which the vector code adds them.
    let mut sums = [0f32; 8];
    for (a, b) in a.chunks_exact(8).zip(b.chunks_exact(8)) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    sums.iter().sum()
}

fn inputs() -> (Vec<f32>, Vec<f32>) {
    (
        (0..1024).map(|n| n as f32 * 0.5).collect(),
        (0..1024).map(|n| 3.0 - n as f32 * 0.25).collect(),
    )
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn dot_avx2(a: &[f32], b: &[f32]) -> f32 {
    use std::arch::x86_64::*;
    let mut sum = _mm256_setzero_ps();
    for (a, b) in a.chunks_exact(8).zip(b.chunks_exact(8)) {
        // SAFETY: both chunks hold eight floats, and the loads need no alignment.
        let (a, b) = unsafe { (_mm256_loadu_ps(a.as_ptr()), _mm256_loadu_ps(b.as_ptr())) };
        sum = _mm256_add_ps(sum, _mm256_mul_ps(a, b));
    }
    let mut parts = [0f32; 8];
    // SAFETY: `parts` has room for the eight floats, and the store needs no alignment.
    unsafe { _mm256_storeu_ps(parts.as_mut_ptr(), sum) };
    parts.iter().sum()
}

fn baseline() -> Outcome {
    // SSE2 is part of the architecture; the compiler uses it for this.
    let (a, b) = inputs();
    let sum: Vec<f32> = black_box(&a).iter().zip(black_box(&b)).map(|(a, b)| a + b).collect();
    ensure!(
        sum.iter().enumerate().all(|(n, &s)| s == 3.0 + n as f32 * 0.25),
        "a vector sum is wrong"
    );
    Ok(())
}

fn avx2() -> Outcome {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        let (a, b) = inputs();
        // SAFETY: the CPU has AVX2.
        let got = unsafe { dot_avx2(black_box(&a), black_box(&b)) };
        ensure_eq!(got, scalar(&a, &b));
        return Ok(());
    }
    skip("this CPU has no AVX2")
}

fn kept_across_switches() -> Outcome {
    let worker = |seed: f64| {
        move || {
            let mut lanes = [seed, seed + 0.25, seed + 0.5, seed + 0.75];
            for n in 0..2000 {
                for lane in &mut lanes {
                    *lane = *lane * 1.000_000_1 + 0.5;
                }
                if n % 4 == 0 {
                    thread::yield_now();
                }
            }
            lanes.map(f64::to_bits)
        }
    };
    let alone: Vec<_> = (0..8).map(|n| worker(f64::from(n))()).collect();
    let threads: Vec<_> = (0..8).map(|n| thread::spawn(worker(f64::from(n)))).collect();
    for (thread, alone) in threads.into_iter().zip(alone) {
        ensure_eq!(join(thread)?, alone);
    }
    Ok(())
}

fn rounding_mode_is_nearest() -> Outcome {
    let here = || {
        black_box(1.0f64) + black_box(f64::EPSILON / 2.0) == 1.0
            && black_box(1.0f32) / 3.0 * 3.0 == 1.0
    };
    ensure!(here(), "in the main thread");
    ensure!(join(thread::spawn(here))?, "in a new thread");
    Ok(())
}
