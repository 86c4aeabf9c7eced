//! Runs checks repeatedly in a changing order, to observe the system under a long mixed load.

use crate::check::{Check, Failure};
use crate::runner::{self, Format, Options};
use std::io::{self, Write};
use std::time::{Duration, Instant};

/// Runs all of `checks` until `time` is over, and the started round to its end. Reports each
/// failure, and each round. Returns whether all passed.
pub fn run(checks: &[Check], options: &Options, time: Duration, seed: u64) -> io::Result<bool> {
    let start = Instant::now();
    let mut order = checks.to_vec();
    let mut random = seed;
    let (mut round, mut all_passed) = (0_u64, true);
    match options.format {
        Format::Lines => writeln!(io::stdout().lock(), "std-check: --seed {seed}")?,
        Format::Json => writeln!(io::stdout().lock(), "{{\"seed\":{seed}}}")?,
    }
    while start.elapsed() < time {
        round += 1;
        shuffle(&mut order, &mut random);
        let mut failed = 0;
        for check in &order {
            let begin = Instant::now();
            let outcome = runner::outcome(check, options)?;
            if matches!(outcome, Err(Failure::Failed(_))) {
                failed += 1;
                runner::tell(check.name, &outcome, begin.elapsed(), options.format)?;
            }
        }
        all_passed &= failed == 0;
        let (seconds, checks) = (start.elapsed().as_secs(), order.len());
        let largest = largest_block();
        let mut out = io::stdout().lock();
        match options.format {
            Format::Lines => writeln!(
                out,
                "round {round}: {seconds} s, {checks} checks, {failed} failed, \
                 largest block {largest} KiB"
            )?,
            Format::Json => writeln!(
                out,
                "{{\"round\":{round},\"seconds\":{seconds},\"checks\":{checks},\
                 \"failed\":{failed},\"largest_block_kib\":{largest}}}"
            )?,
        }
        out.flush()?;
    }
    Ok(all_passed)
}

/// The largest block that there is memory for, in KiB. (Where memory is committed late, the largest
/// address range.)
fn largest_block() -> usize {
    let can = |kib: usize| Vec::<u8>::new().try_reserve_exact(kib << 10).is_ok();
    let (mut fits, mut too_large) = (0, 1 << 32);
    while too_large - fits > 1 {
        let middle = fits + (too_large - fits) / 2;
        if can(middle) {
            fits = middle;
        } else {
            too_large = middle;
        }
    }
    fits
}

fn shuffle(order: &mut [Check], random: &mut u64) {
    for last in (1..order.len()).rev() {
        // Any full-period generator is sufficient; the upper half of its state is the better one.
        *random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        order.swap(last, (*random >> 33) as usize % (last + 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_order_has_all_checks_and_follows_from_the_seed() {
        let all: Vec<Check> = crate::checks::ALL.iter().flat_map(|a| a.iter().copied()).collect();
        let shuffled = |seed: u64| {
            let (mut order, mut random) = (all.clone(), seed);
            shuffle(&mut order, &mut random);
            order.iter().map(|check| check.name).collect::<Vec<_>>()
        };
        let (one, mut sorted) = (shuffled(1), shuffled(1));
        assert_eq!(one, shuffled(1));
        assert_ne!(one, shuffled(2));
        let mut names: Vec<_> = all.iter().map(|check| check.name).collect();
        sorted.sort_unstable();
        names.sort_unstable();
        assert_eq!(sorted, names);
    }
}
