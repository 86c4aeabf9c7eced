//! Panics: caught where they unwind; where they abort, `--die panic` shows the rest.

use crate::check::{Failure, Outcome, failed, skip};
use crate::{checks, ensure, ensure_eq};
use std::panic;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

checks!["panics": caught, reported_by_join, unwinding_drops, hook_is_called, kept_in_scope];

/// Skips where a panic ends the program.
pub fn needs_unwinding() -> Outcome {
    if cfg!(panic = "unwind") {
        Ok(())
    } else {
        skip("a panic ends the program here (panic=abort)")
    }
}

/// Runs `f` without the message that a panic prints: the checks' panics are intended.
pub fn quietly<T>(f: impl FnOnce() -> T) -> T {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let before = panic::take_hook();
    panic::set_hook(Box::new(|_| ()));
    let result = f();
    panic::set_hook(before);
    result
}

fn caught() -> Outcome {
    needs_unwinding()?;
    let payload = quietly(|| panic::catch_unwind(|| panic!("number {}", std::hint::black_box(7))));
    let text = payload.err().and_then(|p| p.downcast::<String>().ok());
    ensure_eq!(text.as_deref().map(String::as_str), Some("number 7"));
    let index = std::hint::black_box(10);
    ensure!(
        quietly(|| panic::catch_unwind(|| [1, 2, 3][index])).is_err(),
        "an index out of bounds did not panic"
    );
    Ok(())
}

fn reported_by_join() -> Outcome {
    needs_unwinding()?;
    let result = quietly(|| thread::spawn(|| panic!("in a thread")).join().map(|()| 0));
    let payload = result.err().ok_or_else(|| failed("join succeeded"))?;
    ensure_eq!(payload.downcast_ref::<&str>(), Some(&"in a thread"));
    Ok(())
}

fn unwinding_drops() -> Outcome {
    struct Count(Arc<AtomicU32>);
    impl Drop for Count {
        fn drop(&mut self) {
            self.0.fetch_add(u32::from(thread::panicking()), Ordering::SeqCst);
        }
    }
    needs_unwinding()?;
    let count = Arc::new(AtomicU32::new(0));
    let guards: Vec<_> = (0..5).map(|_| Count(Arc::clone(&count))).collect();
    let caught = quietly(|| {
        thread::spawn(move || {
            let _guards = guards;
            panic!("with values alive");
        })
        .join()
        .map(|()| 0)
    });
    ensure!(caught.is_err(), "no panic");
    ensure_eq!(count.load(Ordering::SeqCst), 5);
    Ok(())
}

fn hook_is_called() -> Outcome {
    needs_unwinding()?;
    let line = Arc::new(AtomicU32::new(0));
    let seen = Arc::clone(&line);
    let result = quietly(|| {
        panic::set_hook(Box::new(move |info| {
            seen.store(info.location().map_or(1, |l| l.line()), Ordering::SeqCst)
        }));
        thread::spawn(|| panic!("seen by the hook")).join().map(|()| 0)
    });
    ensure!(result.is_err(), "no panic");
    ensure!(line.load(Ordering::SeqCst) > 1, "the hook saw no place");
    Ok(())
}

fn kept_in_scope() -> Outcome {
    needs_unwinding()?;
    let result =
        quietly(|| thread::scope(|scope| scope.spawn(|| panic!("in a scope")).join().map(|()| 0)));
    let payload = result.err().ok_or_else(|| Failure::Failed("join succeeded".into()))?;
    ensure_eq!(payload.downcast_ref::<&str>(), Some(&"in a scope"));
    Ok(())
}
