//! The watchdog: reports threads of a VM's process that owe an answer and do not give it.
//!
//! A thread that others wait for [attends](attend). It states what it works on ([`owe`]), and that
//! it waits ([`waits`]) around calls that may legitimately block for long. Each of these is a store
//! to an atomic. The vCPU thread states nothing: the watchdog derives what it owes from its
//! control ([`Watched`]). A guest that computes forever owes nothing; a vCPU that was asked to
//! stop and does not leave the guest does.
//!
//! One thread looks, five times per limit and only while something is owed. A thread that owes
//! something *stalls* when it has made no progress for as long as the limit: it has not reached
//! another step, and has used no CPU time. So long loops need no special care, and a thread that is
//! blocked in a system call or on a lock is found. If the watchdog itself was not scheduled for a
//! while (the process was stopped, the host was suspended), all limits start anew.
//!
//! A stall is logged, counted in `stats` and the metrics, and reported to waiting clients. The
//! watchdog ends nothing by itself.

mod duty;
mod judge;
mod thread;

pub use duty::{Attends, Doing, Owes, attend, owe, waits};
pub use thread::start;

use duty::Slot;
use std::{
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::{Duration, Instant},
};

/// The default limit.
pub const LIMIT: Duration = Duration::from_secs(5);
/// The shortest limit: on a busy host a thread may have to wait for a CPU.
pub const LIMIT_MIN: Duration = Duration::from_secs(1);

/// One look at a thread that owes something.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Look {
    /// The thread's name.
    pub thread: &'static str,
    /// Its id.
    pub tid: i32,
    /// What it does or was asked to do, in words.
    pub doing: &'static str,
    /// Differs from one look to the next if the thread made progress.
    pub progress: u64,
}

/// A thread that does not state what it owes, but whose state shows it.
pub trait Watched: Send + Sync {
    /// What it owes, or `None`. Must not wait for the thread.
    fn look(&self) -> Option<Look>;
}

/// A thread that stalls.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stalled {
    /// The thread's name.
    pub thread: &'static str,
    /// Its id.
    pub tid: i32,
    /// What it does or was asked to do, in words.
    pub doing: &'static str,
    /// Time without progress, in milliseconds.
    pub for_ms: u64,
}

#[derive(Debug)]
struct Stall {
    look: Look,
    since: Instant,
}

/// State that the watched threads share with the watchdog's thread.
struct State {
    slots: Mutex<Vec<Arc<Slot>>>,
    watched: Mutex<Vec<Weak<dyn Watched>>>,
    thread: OnceLock<std::thread::Thread>,
    asleep: AtomicBool,
    stalls: AtomicU64,
    stalled: Mutex<Vec<Stall>>,
}

static STATE: State = State {
    slots: Mutex::new(Vec::new()),
    watched: Mutex::new(Vec::new()),
    thread: OnceLock::new(),
    asleep: AtomicBool::new(false),
    stalls: AtomicU64::new(0),
    stalled: Mutex::new(Vec::new()),
};

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    /// Something is owed from now on.
    fn wake(&self) {
        if self.asleep.load(SeqCst) && self.asleep.swap(false, SeqCst) {
            self.thread.get().inspect(|thread| thread.unpark());
        }
    }
}

/// Watches one more thread, for as long as it exists.
pub fn watch(watched: Weak<dyn Watched>) {
    lock(&STATE.watched).push(watched);
}

/// The threads that stall now.
#[must_use]
pub fn stalled() -> Vec<Stalled> {
    let stalled = |stall: &Stall| Stalled {
        thread: stall.look.thread,
        tid: stall.look.tid,
        doing: stall.look.doing,
        for_ms: stall.since.elapsed().as_millis() as u64,
    };
    lock(&STATE.stalled).iter().map(stalled).collect()
}

/// How often threads of this process stalled.
#[must_use]
pub fn stalls() -> u64 {
    STATE.stalls.load(Relaxed)
}
