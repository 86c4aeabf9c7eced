//! The watchdog's thread.

use super::{
    Look, STATE, Stall,
    judge::{Event, Judge},
    lock,
};
use crate::host::confine::{self, Thread};
use std::{
    io,
    sync::{
        Arc,
        atomic::Ordering::{Relaxed, SeqCst},
    },
    time::{Duration, Instant},
};

/// Capacity for log texts.
const STACK: usize = 128 << 10;
/// After this many looks at which nothing was owed, the thread sleeps until something is. Not at
/// once, lest each of several short requests wakes it.
const IDLE: u32 = 2;

/// Starts the watchdog; `None` leaves it off. Call it once, from a confined thread.
/// # Errors
/// The host's error if it refuses the thread.
pub fn start(limit: Option<Duration>) -> io::Result<()> {
    let Some(limit) = limit else { return Ok(()) };
    let watch = move || {
        if let Err(e) = confine::enter(Thread::Watchdog) {
            tracing::error!("nothing watches this process: {e}");
            return;
        }
        let _ = STATE.thread.set(std::thread::current());
        run(&mut Judge::new(limit));
    };
    let thread = std::thread::Builder::new().name(Thread::Watchdog.name().into());
    thread.stack_size(STACK).spawn(watch).map(drop)
}

fn run(judge: &mut Judge) -> ! {
    let mut idle = 0;
    loop {
        let (looks, busy) = look();
        judge.look(Instant::now(), looks).into_iter().for_each(tell);
        idle = if busy || judge.any_stalls() { 0 } else { idle + 1 };
        if idle <= IDLE {
            std::thread::park_timeout(judge.period());
            continue;
        }
        // Set before the last look, so that work which is owed after that look wakes the thread.
        STATE.asleep.store(true, SeqCst);
        while !look().1 && STATE.asleep.load(SeqCst) {
            std::thread::park();
        }
        STATE.asleep.store(false, SeqCst);
        judge.forget();
        idle = 0;
    }
}

/// The threads that owe something, and whether any is busy.
fn look() -> (Vec<Look>, bool) {
    let slots: Vec<_> = lock(&STATE.slots).iter().map(Arc::clone).collect();
    let mut busy = slots.iter().any(|slot| slot.busy());
    let mut looks: Vec<_> = slots.iter().filter_map(|slot| slot.look()).collect();
    let mut watched = Vec::new();
    lock(&STATE.watched).retain(|weak| {
        let strong = weak.upgrade();
        watched.extend(strong.clone());
        strong.is_some()
    });
    for owed in watched.iter().filter_map(|watched| watched.look()) {
        busy = true;
        looks.push(owed);
    }
    (looks, busy)
}

fn tell(event: Event) {
    let pid = std::process::id();
    match event {
        Event::Stalls(look, since) => {
            STATE.stalls.fetch_add(1, Relaxed);
            let Look { thread, tid, doing, .. } = look;
            lock(&STATE.stalled).push(Stall { look, since });
            // Last, as writing to standard error may block on its reader.
            tracing::warn!(
                "thread {thread} ({tid}) has not answered for {:.1} s: it {doing}. What it waits \
                 for: \
                 `cat /proc/{pid}/task/{tid}/wchan`, and as root .../stack. If it never answers, \
                 `kill -9 {pid}` is what ends this VM",
                since.elapsed().as_secs_f64()
            );
        }
        Event::Over(look, since) => {
            let Look { thread, tid, .. } = look;
            lock(&STATE.stalled)
                .retain(|stall| (stall.look.thread, stall.look.tid) != (thread, tid));
            tracing::warn!(
                "thread {thread} ({tid}) answers again, after {:.1} s",
                since.elapsed().as_secs_f64()
            );
        }
    }
}
