//! Thread-local storage.

use crate::check::{Outcome, join};
use crate::{checks, ensure, ensure_eq};
use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

checks!["tls": each_thread_has_its_own, initialized_once_per_thread, destructors_run, alignment,
    used_in_destructors];

fn each_thread_has_its_own() -> Outcome {
    thread_local!(static VALUE: Cell<u64> = const { Cell::new(7) });
    VALUE.set(1);
    let threads: Vec<_> = (0..50u64)
        .map(|n| {
            thread::spawn(move || {
                let before = VALUE.replace(n);
                thread::yield_now();
                (before, VALUE.get())
            })
        })
        .collect();
    for (n, thread) in (0u64..).zip(threads) {
        ensure_eq!(join(thread)?, (7, n));
    }
    ensure_eq!(VALUE.get(), 1);
    Ok(())
}

fn initialized_once_per_thread() -> Outcome {
    static INITS: AtomicU32 = AtomicU32::new(0);
    thread_local!(static LAZY: RefCell<Vec<u8>> = {
        INITS.fetch_add(1, Ordering::SeqCst);
        RefCell::new(vec![1, 2, 3])
    });
    let before = INITS.load(Ordering::SeqCst);
    for _ in 0..10 {
        let len = join(thread::spawn(|| {
            LAZY.with_borrow_mut(|v| v.push(4));
            LAZY.with_borrow(Vec::len)
        }))?;
        ensure_eq!(len, 4);
    }
    ensure_eq!(INITS.load(Ordering::SeqCst) - before, 10);
    Ok(())
}

fn destructors_run() -> Outcome {
    struct Guard(Arc<AtomicU32>);
    impl Drop for Guard {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    thread_local!(static GUARD: RefCell<Option<Guard>> = const { RefCell::new(None) });
    let dropped = Arc::new(AtomicU32::new(0));
    for n in 1..=20 {
        let counter = Arc::clone(&dropped);
        join(thread::spawn(move || GUARD.set(Some(Guard(counter)))))?;
        ensure_eq!(dropped.load(Ordering::SeqCst), n);
    }
    Ok(())
}

fn alignment() -> Outcome {
    #[repr(align(64))]
    struct Aligned(Cell<u8>);
    thread_local!(static BLOCK: Aligned = const { Aligned(Cell::new(3)) });
    let ok = || BLOCK.with(|b| std::ptr::from_ref(b).addr().is_multiple_of(64) && b.0.get() == 3);
    ensure!(ok(), "in this thread");
    ensure!(join(thread::spawn(ok))?, "in a new thread");
    Ok(())
}

fn used_in_destructors() -> Outcome {
    struct Last;
    impl Drop for Last {
        fn drop(&mut self) {
            let _still_there = OTHER.try_with(|other| other.borrow().len());
        }
    }
    thread_local! {
        static OTHER: RefCell<String> = RefCell::new("other".into());
        static LAST: Last = const { Last };
    }
    join(thread::spawn(|| {
        LAST.with(|_| ());
        OTHER.with_borrow_mut(|o| o.push('!'));
    }))
}
