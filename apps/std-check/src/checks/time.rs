//! Clocks and sleeping.

use crate::check::Outcome;
use crate::{checks, ensure};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

checks!["time": never_goes_back, has_fine_grain, sleep_is_long_enough, sleep_is_not_much_longer,
    short_sleeps,
    wall_clock_is_set, clocks_agree, sleeps_end_in_order, arithmetic];

fn never_goes_back() -> Outcome {
    let mut last = Instant::now();
    for n in 0..200_000 {
        if n % 1000 == 0 {
            thread::yield_now();
        }
        let now = Instant::now();
        ensure!(now >= last, "the clock went back by {:?}", last.duration_since(now));
        last = now;
    }
    Ok(())
}

fn has_fine_grain() -> Outcome {
    // The best of several: a busy host may run something else between two readings.
    let mut best = Duration::MAX;
    for _ in 0..20 {
        let start = Instant::now();
        let mut reads = 0u32;
        let step = loop {
            let now = Instant::now();
            if now != start {
                break now - start;
            }
            reads += 1;
            ensure!(reads < 100_000_000, "the clock does not advance");
        };
        best = best.min(step);
    }
    ensure!(best < Duration::from_millis(1), "the clock moves in steps of {best:?}");
    Ok(())
}

fn sleep_is_long_enough() -> Outcome {
    for ms in [1, 3, 10, 30] {
        let wanted = Duration::from_millis(ms);
        let start = Instant::now();
        thread::sleep(wanted);
        ensure!(start.elapsed() >= wanted, "{wanted:?} lasted {:?}", start.elapsed());
    }
    Ok(())
}

fn sleep_is_not_much_longer() -> Outcome {
    // The best of several: a busy host may be late sometimes, a wrong clock always is.
    let best = (0..40)
        .map(|_| {
            let start = Instant::now();
            thread::sleep(Duration::from_millis(5));
            start.elapsed()
        })
        .min()
        .unwrap_or_default();
    ensure!(best < Duration::from_millis(15), "5 ms lasted {best:?} at best");
    Ok(())
}

fn short_sleeps() -> Outcome {
    let start = Instant::now();
    thread::sleep(Duration::ZERO);
    for _ in 0..100 {
        thread::sleep(Duration::from_nanos(1));
    }
    ensure!(
        start.elapsed() < Duration::from_secs(60),
        "100 sleeps of a nanosecond lasted {:?}",
        start.elapsed()
    );
    Ok(())
}

fn wall_clock_is_set() -> Outcome {
    let year = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() / 31_556_952 + 1970;
    ensure!((2025..2100).contains(&year), "it is the year {year}");
    Ok(())
}

fn clocks_agree() -> Outcome {
    // The best of several, as above.
    let mut best = Duration::MAX;
    for _ in 0..20 {
        let (start, wall) = (Instant::now(), SystemTime::now());
        thread::sleep(Duration::from_millis(20));
        best = best.min(start.elapsed().abs_diff(wall.elapsed()?));
    }
    ensure!(best < Duration::from_millis(1), "in 20 ms they are {best:?} apart");
    Ok(())
}

fn sleeps_end_in_order() -> Outcome {
    let (sender, receiver) = std::sync::mpsc::channel();
    for n in [4u64, 1, 3, 0, 2] {
        let sender = sender.clone();
        thread::spawn(move || {
            thread::sleep(Duration::from_millis(20 + n * 100));
            // The receiver exists until all have sent.
            let _ = sender.send(n);
        });
    }
    drop(sender);
    let order: Vec<u64> = receiver.iter().collect();
    ensure!(order == [0, 1, 2, 3, 4], "they ended in the order {order:?}");
    Ok(())
}

fn arithmetic() -> Outcome {
    let now = Instant::now();
    let later = now + Duration::from_secs(3600);
    ensure!(later.duration_since(now) == Duration::from_secs(3600), "an hour is not an hour");
    ensure!(
        now.saturating_duration_since(later) == Duration::ZERO,
        "a negative duration is not zero"
    );
    ensure!(now.checked_add(Duration::MAX).is_none(), "time after the end of time");
    Ok(())
}
