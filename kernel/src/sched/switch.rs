//! From one thread to the next.

use core::{
    ptr::{self, NonNull},
    sync::atomic::{AtomicPtr, AtomicU64, Ordering::Relaxed},
};

use super::{Thread, ThreadId, Wake, lifecycle, timers::Timers};
use crate::{
    arch::{context, cpu},
    cpu::KernelCell,
    list::List,
    mm::stacks::Stack,
    time,
};

/// Threads that are ready, and the deadlines of those that wait.
pub(super) struct Queues {
    pub ready: List<Thread>,
    pub timers: Timers<Thread>,
}

/// The scheduler's queues.
pub(super) static QUEUES: KernelCell<Queues> =
    KernelCell::new(Queues { ready: List::new(), timers: Timers::new() });

/// The thread that runs; null until the first does. Outside of [`QUEUES`], so that the handler of a
/// page fault can read it.
static CURRENT: AtomicPtr<Thread> = AtomicPtr::new(ptr::null_mut());

/// What is done while no thread is ready: waits until something may have made one ready.
pub(super) static IDLE_WORK: KernelCell<fn()> = KernelCell::new(no_idle_work);

fn no_idle_work() {
    unreachable!("threads switch after `start` only")
}

/// When the current thread got the vCPU.
static SINCE: AtomicU64 = AtomicU64::new(0);

/// The thread that runs.
pub(super) fn current() -> NonNull<Thread> {
    NonNull::new(CURRENT.load(Relaxed)).expect("threads run")
}

/// Its number.
#[must_use]
pub fn current_id() -> ThreadId {
    // SAFETY: null, or a thread that runs and so is alive.
    unsafe { CURRENT.load(Relaxed).as_ref() }.map_or(0, |t| t.id)
}

/// Its stack; `None` before there are threads.
#[must_use]
pub fn current_stack() -> Option<&'static Stack> {
    // SAFETY: as above. The reference is used by what runs on that very stack, so it does not
    // outlive it.
    unsafe { CURRENT.load(Relaxed).as_ref() }.map(|t| &t.stack)
}

/// The number of the last error that a call of the current thread ended with; 0 if none has.
#[must_use]
pub fn last_error() -> i32 {
    // SAFETY: null, or a thread that runs and so is alive.
    unsafe { CURRENT.load(Relaxed).as_ref() }.map_or(0, |t| t.last_error.get())
}

/// Notes the number of the error that a call of the current thread ends with.
pub fn set_last_error(number: i32) {
    // SAFETY: as above.
    if let Some(thread) = unsafe { CURRENT.load(Relaxed).as_ref() } {
        thread.last_error.set(number);
    }
}

/// How long the current thread has had the vCPU, ns.
#[must_use]
pub fn running_for(now: u64) -> u64 {
    now.saturating_sub(SINCE.load(Relaxed))
}

/// Lets other threads run, if any are ready: the current one goes to the end of the queue.
pub fn yield_now() {
    let others = QUEUES.with(|q| {
        let others = !q.ready.is_empty();
        if others {
            // SAFETY: the current thread is in no list; it leaves this one when it runs again. The
            // list is a static.
            unsafe { q.ready.push_back(current()) };
        }
        others
    });
    if others {
        switch();
    }
}

/// Waits until the monotonic clock reaches `deadline_ns`.
pub fn sleep_until(deadline_ns: u64) {
    block(Some(deadline_ns));
}

/// Waits until [`make_ready`] or the deadline. Before, the caller has put the current thread where
/// it will be found.
pub(super) fn block(deadline_ns: Option<u64>) -> Wake {
    let me = current();
    // SAFETY: it runs, so it is alive.
    let thread = unsafe { me.as_ref() };
    thread.timed_out.set(false);
    if let Some(deadline) = deadline_ns {
        // SAFETY: a thread that runs has no deadline, and it loses this one before it runs again.
        QUEUES.with(|q| unsafe { q.timers.insert(me, deadline) });
    }
    switch();
    if thread.timed_out.get() { Wake::TimedOut } else { Wake::Woken }
}

/// Makes a thread ready that waits and that has been taken from where it was found.
pub(super) fn make_ready(thread: NonNull<Thread>) {
    QUEUES.with(|q| {
        // SAFETY: it waits, so it is alive, and the caller has taken it from its list.
        unsafe {
            q.timers.remove(thread);
            q.ready.push_back(thread);
        }
    });
}

/// Makes those threads ready whose deadline is not after `now`.
pub fn wake_due(now: u64) {
    QUEUES.with(|q| {
        while let Some(thread) = q.timers.pop_due(now) {
            // SAFETY: it waits, so it is alive; it may be in a list, which it leaves.
            unsafe {
                thread.as_ref().timed_out.set(true);
                List::remove(thread);
                q.ready.push_back(thread);
            }
        }
    });
}

/// Whether a thread is ready besides the current one.
#[must_use]
pub fn any_ready() -> bool {
    QUEUES.with(|q| !q.ready.is_empty())
}

/// The nearest deadline of a thread that waits, by the monotonic clock.
#[must_use]
pub fn next_deadline() -> Option<u64> {
    QUEUES.with(|q| q.timers.next())
}

/// Switches to the next ready thread, and does the idle work until there is one. Returns when the
/// current thread runs again.
pub(super) fn switch() {
    let next = loop {
        if let Some(next) = QUEUES.with(|q| q.ready.pop_front()) {
            break next;
        }
        let idle_work = IDLE_WORK.with(|work| *work);
        idle_work();
    };
    let from = current();
    if next == from {
        return;
    }
    // SAFETY: threads in lists are alive. `sp` was left there by a switch, or prepared at birth; it
    // is used once. What runs from here on is the next thread, so thread-local storage is that
    // thread's.
    unsafe {
        enter(next);
        context::switch_stack(from.as_ref().sp.as_ptr(), next.as_ref().sp.get());
    }
    lifecycle::free_ended();
}

/// Makes `next` the current thread, but for its stack.
///
/// # Safety
/// It is alive, and the caller goes on to its stack, using no thread-local storage before.
pub(super) unsafe fn enter(next: NonNull<Thread>) {
    CURRENT.store(next.as_ptr(), Relaxed);
    SINCE.store(time::last_ns(), Relaxed);
    // SAFETY: as the caller promises.
    unsafe { cpu::set_fs_base(next.as_ref().tls.pointer()) };
}
