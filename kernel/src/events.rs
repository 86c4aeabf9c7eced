//! What comes from outside the guest: checked for while threads run, and waited for when none can.
//!
//! No interrupt runs Rust, so the kernel polls: at a [`checkpoint`] in each call of the
//! program, and in [`idle`], which the scheduler calls when no thread is ready. Both see quiesce
//! requests, deadlines and packets.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use vmm_lite_interface::control::FaultKind;

use crate::{counters, fault, net, platform, quiesce, sched, time};

/// How often a busy guest polls the platform and the network, ns: a poll costs an exit.
const POLL_EVERY: u64 = 250_000;
/// How long a thread may go on at calls that need not wait while others could run, ns.
const SLICE: u64 = 5_000_000;

/// When the next poll is due, by the monotonic clock.
static NEXT_POLL: AtomicU64 = AtomicU64::new(0);

/// Handles a quiesce request, deadlines that have passed, and the network if the last poll was a
/// while ago; lets other threads run if the current one has run for long.
///
/// Cheap enough for each call that a program may repeat without ever waiting. No
/// [`KernelCell`](crate::cpu::KernelCell) may be lent out.
#[inline]
pub fn checkpoint() {
    checkpoint_at(time::now_ns());
}

/// [`checkpoint`], for a caller that has read the monotonic clock.
#[inline]
pub fn checkpoint_at(now: u64) {
    if quiesce::requested() || now >= NEXT_POLL.load(Relaxed) {
        slow_checkpoint(now);
    }
}

#[cold]
fn slow_checkpoint(now: u64) {
    handle(now);
    if sched::running_for(now) > SLICE || quiesce::is_urgent() {
        sched::yield_now();
    }
}

/// A [`checkpoint`] that lets other threads run in any case.
pub fn yield_now() {
    handle(time::now_ns());
    sched::yield_now();
}

/// A [`checkpoint`], then waits for `ns`; 0 is a [`yield_now`].
pub fn sleep(ns: u64) {
    let until = time::now_ns().saturating_add(ns);
    checkpoint();
    if ns == 0 { yield_now() } else { sched::sleep_until(until) }
}

/// Handles all that needs no waiting.
fn handle(now: u64) {
    quiesce::poll();
    sched::wake_due(now);
    if now >= NEXT_POLL.load(Relaxed) {
        NEXT_POLL.store(now + POLL_EVERY, Relaxed);
        platform::poll();
        let _ = net::poll(now);
    }
}

/// The scheduler's idle work: waits until something may have made a thread ready. No thread runs
/// meanwhile.
pub fn idle() {
    quiesce::poll();
    let now = time::now_ns();
    sched::wake_due(now);
    let network = net::poll(now);
    if sched::any_ready() {
        return;
    }
    let deadline = [network, sched::next_deadline(), quiesce::deadline()];
    let deadline = deadline.into_iter().flatten().min();
    if deadline.is_none() && !can_wake() {
        fault::end(FaultKind::Deadlock);
    }
    counters::publish();
    platform::idle(deadline);
    // Whatever ended the wait, the platform has been polled.
    let now = time::now_ns();
    NEXT_POLL.store(now + POLL_EVERY, Relaxed);
    let _ = net::poll(now);
    sched::wake_due(now);
}

/// Whether something from outside can make a thread ready, ever.
fn can_wake() -> bool {
    net::is_awaited() || platform::console_is_awaited() || quiesce::can_wake()
}
