//! Threads: many, named, scoped, with stacks of requested size.

use crate::check::{Failure, Outcome, failed, join};
use crate::{checks, ensure, ensure_eq};
use std::cell::Cell;
use std::collections::HashSet;
use std::hint::black_box;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

checks!["threads": results_come_back, names, ids_are_unique, parallelism, two_thousand_at_once,
    twenty_thousand_in_turn,
    scoped, yield_lets_others_run, is_finished, detached, default_stack, large_stack, small_stack,
        park, park_timeout, spawn_from_threads];

fn results_come_back() -> Outcome {
    let threads: Vec<_> = (0..50u64).map(|n| thread::spawn(move || n * n)).collect();
    for (n, thread) in (0u64..).zip(threads) {
        ensure_eq!(join(thread)?, n * n);
    }
    Ok(())
}

fn names() -> Outcome {
    let name = || thread::current().name().map(str::to_owned);
    let handle = thread::Builder::new().name("a name".into()).spawn(name)?;
    ensure_eq!(handle.thread().name(), Some("a name"));
    ensure_eq!(join(handle)?.as_deref(), Some("a name"));
    ensure_eq!(join(thread::spawn(name))?, None);
    Ok(())
}

fn ids_are_unique() -> Outcome {
    let mut ids = HashSet::from([thread::current().id()]);
    for _ in 0..100 {
        let handle = thread::spawn(|| thread::current().id());
        let seen_outside = handle.thread().id();
        ensure_eq!(join(handle)?, seen_outside);
        ensure!(ids.insert(seen_outside), "two threads had the same id");
    }
    Ok(())
}

fn parallelism() -> Outcome {
    ensure!(thread::available_parallelism()?.get() >= 1, "no CPU");
    Ok(())
}

fn two_thousand_at_once() -> Outcome {
    const COUNT: usize = 2000;
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let inside = Arc::new(AtomicUsize::new(0));
    let mut threads = Vec::new();
    let mut error = None;
    for n in 0..COUNT {
        let (gate, inside) = (Arc::clone(&gate), Arc::clone(&inside));
        // As much stack as the thread needs, and no more: memory must not be the limit.
        let spawned = thread::Builder::new().stack_size(32 * 1024).spawn(move || {
            inside.fetch_add(1, Ordering::SeqCst);
            let Ok(open) = gate.0.lock() else { return n };
            drop(gate.1.wait_while(open, |open| !*open));
            n
        });
        match spawned {
            Ok(thread) => threads.push(thread),
            Err(e) => {
                error = Some(failed(format_args!("thread {n} could not be made: {e}")));
                break;
            }
        }
    }
    while inside.load(Ordering::SeqCst) < threads.len() {
        thread::sleep(Duration::from_millis(1));
    }
    *gate.0.lock().map_err(|_| failed("poisoned"))? = true;
    gate.1.notify_all();
    let mut sum = 0;
    for thread in threads {
        sum += join(thread)?;
    }
    error.map_or(Ok(()), Err)?;
    ensure_eq!(sum, COUNT * (COUNT - 1) / 2);
    Ok(())
}

fn twenty_thousand_in_turn() -> Outcome {
    let mut sum = 0u64;
    for n in 0..20_000u64 {
        sum += join(thread::spawn(move || n))?;
    }
    ensure_eq!(sum, 199_990_000);
    Ok(())
}

fn scoped() -> Outcome {
    let mut numbers = vec![1u32; 1000];
    let total = AtomicU32::new(0);
    thread::scope(|scope| {
        for part in numbers.chunks_mut(100) {
            scope.spawn(|| {
                part.iter_mut().for_each(|n| *n += 1);
                total.fetch_add(part.iter().sum(), Ordering::Relaxed);
            });
        }
    });
    ensure_eq!(total.into_inner(), 2000);
    ensure!(numbers.iter().all(|&n| n == 2), "a scoped thread's work is missing");
    Ok(())
}

fn yield_lets_others_run() -> Outcome {
    let turn = Arc::new(AtomicU32::new(0));
    let threads: Vec<_> = (0..3)
        .map(|me| {
            let turn = Arc::clone(&turn);
            thread::spawn(move || {
                for round in 0..100 {
                    while turn.load(Ordering::SeqCst) != round * 3 + me {
                        thread::yield_now();
                    }
                    turn.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    for thread in threads {
        join(thread)?;
    }
    ensure_eq!(turn.load(Ordering::SeqCst), 300);
    Ok(())
}

fn is_finished() -> Outcome {
    let handle = thread::spawn(|| thread::sleep(Duration::from_millis(20)));
    ensure!(!handle.is_finished(), "finished before it could be");
    let start = Instant::now();
    while !handle.is_finished() {
        ensure!(start.elapsed() < Duration::from_secs(60), "never finished");
        thread::sleep(Duration::from_millis(1));
    }
    join(handle)
}

fn detached() -> Outcome {
    let (sender, receiver) = std::sync::mpsc::channel();
    drop(thread::spawn(move || {
        thread::sleep(Duration::from_millis(5));
        sender.send(5)
    }));
    ensure_eq!(receiver.recv_timeout(Duration::from_secs(10))?, 5);
    Ok(())
}

/// Uses about `kib` KiB of stack.
fn deep(kib: u32) -> u32 {
    let frame = black_box([kib as u8; 1024]);
    if kib == 0 { u32::from(frame[7]) } else { deep(kib - 1) + u32::from(frame[1000] == kib as u8) }
}

fn run_deep(builder: thread::Builder, kib: u32) -> Result<(), Failure> {
    ensure_eq!(join(builder.spawn(move || deep(kib))?)?, kib);
    Ok(())
}

fn default_stack() -> Outcome {
    run_deep(thread::Builder::new(), 400)
}

fn large_stack() -> Outcome {
    run_deep(thread::Builder::new().stack_size(4 << 20), 2000)
}

fn small_stack() -> Outcome {
    run_deep(thread::Builder::new().stack_size(64 << 10), 16)
}

fn park() -> Outcome {
    // A token given before the park is not lost.
    thread::current().unpark();
    thread::park();
    let main = thread::current();
    let handle = thread::spawn(move || {
        thread::sleep(Duration::from_millis(10));
        main.unpark();
    });
    thread::park();
    join(handle)
}

fn park_timeout() -> Outcome {
    let start = Instant::now();
    // A park may end early without a reason; in the end time has to pass.
    while start.elapsed() < Duration::from_millis(20) {
        thread::park_timeout(Duration::from_millis(20).saturating_sub(start.elapsed()));
    }
    ensure!(start.elapsed() < Duration::from_secs(60), "20 ms lasted {:?}", start.elapsed());
    Ok(())
}

fn spawn_from_threads() -> Outcome {
    thread_local!(static DEPTH: Cell<u32> = const { Cell::new(0) });
    fn nest(n: u32) -> Result<u32, Failure> {
        DEPTH.set(n);
        let below = if n == 0 { 0 } else { join(thread::spawn(move || nest(n - 1)))?? };
        Ok(below + DEPTH.get())
    }
    ensure_eq!(nest(20)?, 210);
    Ok(())
}
