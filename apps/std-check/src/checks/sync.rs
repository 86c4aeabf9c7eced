//! Locks and the rest of std::sync, contended and with timeouts.

use crate::check::{Failure, Outcome, failed, join};
use crate::{checks, ensure, ensure_eq};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Condvar, LazyLock, Mutex, Once, OnceLock, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

checks!["sync": mutex_excludes, try_lock, condvar_ping_pong, condvar_timeout,
    condvar_timeout_in_time, notify_all,
    notify_one_wakes_one, rwlock_shares_and_excludes, rwlock_readers_wait_for_writer, once,
        once_lock, lazy_lock, barrier, atomics, poisoning];

fn lock<T>(mutex: &Mutex<T>) -> Result<std::sync::MutexGuard<'_, T>, Failure> {
    mutex.lock().map_err(|_| failed("a mutex is poisoned"))
}

fn mutex_excludes() -> Outcome {
    let counter = Arc::new(Mutex::new(0u64));
    let threads: Vec<_> = (0..16)
        .map(|_| {
            let counter = Arc::clone(&counter);
            thread::spawn(move || {
                for n in 0..500 {
                    let mut value = counter.lock().unwrap_or_else(PoisonError::into_inner);
                    let read = *value;
                    if n % 50 == 0 {
                        thread::yield_now(); // Others now meet a locked mutex.
                    }
                    *value = read + 1;
                }
            })
        })
        .collect();
    for thread in threads {
        join(thread)?;
    }
    ensure_eq!(*lock(&counter)?, 8000);
    Ok(())
}

fn try_lock() -> Outcome {
    let mutex = Arc::new(Mutex::new(()));
    let guard = lock(&mutex)?;
    let other = Arc::clone(&mutex);
    ensure!(
        join(thread::spawn(move || other.try_lock().is_err()))?,
        "a locked mutex was locked again"
    );
    drop(guard);
    ensure!(mutex.try_lock().is_ok(), "a free mutex could not be locked");
    Ok(())
}

fn condvar_ping_pong() -> Outcome {
    let shared = Arc::new((Mutex::new(0u32), Condvar::new()));
    let other = Arc::clone(&shared);
    let turns = move |shared: &(Mutex<u32>, Condvar), parity: u32| -> Option<()> {
        for _ in 0..1000 {
            let mut n = shared.1.wait_while(shared.0.lock().ok()?, |n| *n % 2 != parity).ok()?;
            *n += 1;
            shared.1.notify_one();
        }
        Some(())
    };
    let thread = thread::spawn(move || turns(&other, 1));
    ensure!(turns(&shared, 0).is_some(), "poisoned");
    ensure!(join(thread)?.is_some(), "poisoned");
    ensure_eq!(*lock(&shared.0)?, 2000);
    Ok(())
}

fn condvar_timeout() -> Outcome {
    let (mutex, condvar) = (Mutex::new(()), Condvar::new());
    let start = Instant::now();
    let (_guard, result) = condvar
        .wait_timeout_while(lock(&mutex)?, Duration::from_millis(30), |()| true)
        .map_err(|_| failed("poisoned"))?;
    ensure!(result.timed_out(), "it did not time out");
    let took = start.elapsed();
    ensure!((30..60_000).contains(&took.as_millis()), "30 ms lasted {took:?}");
    Ok(())
}

fn condvar_timeout_in_time() -> Outcome {
    let shared = Arc::new((Mutex::new(false), Condvar::new()));
    let other = Arc::clone(&shared);
    let thread = thread::spawn(move || {
        thread::sleep(Duration::from_millis(10));
        *other.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        other.1.notify_one();
    });
    let start = Instant::now();
    let (_guard, result) = shared
        .1
        .wait_timeout_while(lock(&shared.0)?, Duration::from_secs(30), |ready| !*ready)
        .map_err(|_| failed("poisoned"))?;
    ensure!(!result.timed_out(), "timed out though notified");
    ensure!(
        start.elapsed() < Duration::from_secs(60),
        "the notification took {:?}",
        start.elapsed()
    );
    join(thread)
}

/// `count` threads that wait for `open`, and count themselves after the wait.
struct Waiters {
    gate: Arc<(Mutex<u32>, Condvar)>,
    waiting: Arc<AtomicU32>,
    passed: Arc<AtomicU32>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Waiters {
    fn new(count: u32) -> Self {
        let gate: Arc<(Mutex<u32>, Condvar)> = Arc::default();
        let (waiting, passed): (Arc<AtomicU32>, Arc<AtomicU32>) = (Arc::default(), Arc::default());
        let threads = (0..count)
            .map(|_| {
                let (gate, waiting, passed) =
                    (Arc::clone(&gate), Arc::clone(&waiting), Arc::clone(&passed));
                thread::spawn(move || {
                    let permits = gate.0.lock().unwrap_or_else(PoisonError::into_inner);
                    waiting.fetch_add(1, Ordering::SeqCst);
                    let permits = gate.1.wait_while(permits, |permits| *permits == 0);
                    *permits.unwrap_or_else(PoisonError::into_inner) -= 1;
                    passed.fetch_add(1, Ordering::SeqCst);
                })
            })
            .collect();
        let waiters = Self { gate, waiting, passed, threads };
        while waiters.waiting.load(Ordering::SeqCst) < count {
            thread::sleep(Duration::from_millis(1));
        }
        waiters
    }

    fn permit(&self, count: u32) {
        *self.gate.0.lock().unwrap_or_else(PoisonError::into_inner) += count;
    }

    fn until_passed(&self, count: u32) -> Outcome {
        let start = Instant::now();
        while self.passed.load(Ordering::SeqCst) < count {
            ensure!(start.elapsed() < Duration::from_secs(60), "waiters were not woken");
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

fn notify_all() -> Outcome {
    let waiters = Waiters::new(50);
    waiters.permit(50);
    waiters.gate.1.notify_all();
    waiters.until_passed(50)?;
    for thread in waiters.threads {
        join(thread)?;
    }
    Ok(())
}

fn notify_one_wakes_one() -> Outcome {
    let waiters = Waiters::new(10);
    for n in 1..=10 {
        waiters.permit(1);
        waiters.gate.1.notify_one();
        waiters.until_passed(n)?;
    }
    for thread in waiters.threads {
        join(thread)?;
    }
    Ok(())
}

fn rwlock_shares_and_excludes() -> Outcome {
    let lock = Arc::new(RwLock::new(0u32));
    let barrier = Arc::new(Barrier::new(4));
    let readers: Vec<_> = (0..4)
        .map(|_| {
            let (lock, barrier) = (Arc::clone(&lock), Arc::clone(&barrier));
            thread::spawn(move || {
                let value = lock.read().unwrap_or_else(PoisonError::into_inner);
                barrier.wait(); // Ends only if all four are inside at once.
                *value
            })
        })
        .collect();
    for reader in readers {
        ensure_eq!(join(reader)?, 0);
    }
    let writers: Vec<_> = (0..8)
        .map(|_| {
            let lock = Arc::clone(&lock);
            thread::spawn(move || {
                for _ in 0..100 {
                    let mut value = lock.write().unwrap_or_else(PoisonError::into_inner);
                    let read = *value;
                    thread::yield_now();
                    *value = read + 1;
                }
            })
        })
        .collect();
    for writer in writers {
        join(writer)?;
    }
    ensure_eq!(*lock.read().map_err(|_| failed("poisoned"))?, 800);
    Ok(())
}

fn rwlock_readers_wait_for_writer() -> Outcome {
    let lock = Arc::new(RwLock::new(0));
    let mut guard = lock.write().map_err(|_| failed("poisoned"))?;
    let other = Arc::clone(&lock);
    let reader = thread::spawn(move || *other.read().unwrap_or_else(PoisonError::into_inner));
    thread::sleep(Duration::from_millis(10));
    *guard = 9;
    drop(guard);
    ensure_eq!(join(reader)?, 9);
    Ok(())
}

fn once() -> Outcome {
    static RUNS: AtomicU32 = AtomicU32::new(0);
    let once = Arc::new(Once::new());
    RUNS.store(0, Ordering::SeqCst);
    let threads: Vec<_> = (0..10)
        .map(|_| {
            let once = Arc::clone(&once);
            thread::spawn(move || {
                once.call_once(|| {
                    thread::sleep(Duration::from_millis(5));
                    RUNS.fetch_add(1, Ordering::SeqCst);
                });
                RUNS.load(Ordering::SeqCst)
            })
        })
        .collect();
    for thread in threads {
        ensure_eq!(join(thread)?, 1);
    }
    Ok(())
}

fn once_lock() -> Outcome {
    let cell = Arc::new(OnceLock::new());
    let threads: Vec<_> = (0..10u32)
        .map(|n| {
            let cell = Arc::clone(&cell);
            thread::spawn(move || {
                *cell.get_or_init(|| {
                    thread::yield_now();
                    n
                })
            })
        })
        .collect();
    let mut values = Vec::new();
    for thread in threads {
        values.push(join(thread)?);
    }
    ensure!(
        values.iter().all(|v| Some(v) == cell.get()),
        "threads saw different values: {values:?}"
    );
    Ok(())
}

fn lazy_lock() -> Outcome {
    static LAZY: LazyLock<Vec<u32>> = LazyLock::new(|| (0..100).collect());
    ensure_eq!(join(thread::spawn(|| LAZY.len()))?, 100);
    ensure_eq!(LAZY[99], 99);
    Ok(())
}

fn barrier() -> Outcome {
    let barrier = Arc::new(Barrier::new(10));
    let leaders = Arc::new(AtomicU32::new(0));
    let threads: Vec<_> = (0..10)
        .map(|_| {
            let (barrier, leaders) = (Arc::clone(&barrier), Arc::clone(&leaders));
            thread::spawn(move || {
                for _ in 0..20 {
                    if barrier.wait().is_leader() {
                        leaders.fetch_add(1, Ordering::SeqCst);
                    }
                }
            })
        })
        .collect();
    for thread in threads {
        join(thread)?;
    }
    ensure_eq!(leaders.load(Ordering::SeqCst), 20);
    Ok(())
}

fn atomics() -> Outcome {
    let (sum, max, flag) = (
        Arc::new(AtomicU64::new(0)),
        Arc::new(AtomicUsize::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    let threads: Vec<_> = (0..8usize)
        .map(|n| {
            let (sum, max, flag) = (Arc::clone(&sum), Arc::clone(&max), Arc::clone(&flag));
            thread::spawn(move || {
                for m in 0..1000 {
                    sum.fetch_add(1, Ordering::Relaxed);
                    max.fetch_max(n * 1000 + m, Ordering::Relaxed);
                }
                !flag.swap(true, Ordering::AcqRel)
            })
        })
        .collect();
    let mut first = 0;
    for thread in threads {
        first += u32::from(join(thread)?);
    }
    ensure_eq!((sum.load(Ordering::SeqCst), max.load(Ordering::SeqCst), first), (8000, 7999, 1));
    Ok(())
}

fn poisoning() -> Outcome {
    super::panics::needs_unwinding()?;
    let mutex = Arc::new(Mutex::new(1));
    let other = Arc::clone(&mutex);
    let panicked = super::panics::quietly(|| {
        thread::spawn(move || {
            let _guard = other.lock();
            panic!("with the lock held");
        })
        .join()
    });
    ensure!(panicked.is_err(), "the panic was not reported by join");
    ensure!(mutex.is_poisoned(), "the mutex is not poisoned");
    mutex.clear_poison();
    ensure_eq!(*lock(&mutex)?, 1);
    Ok(())
}
