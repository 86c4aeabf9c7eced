//! The world outside: looked at now and then while threads run, waited for when none can.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use vmm_lite_interface::control::FaultKind;

use super::switch::{QUEUES, fire, give_way, running_for};
use crate::{fault, net, platform, quiesce, time};

/// How often a busy guest looks at the world, ns: a look costs an exit.
const LOOK_EVERY: u64 = 250_000;
/// How long a thread may go on at calls that need not wait while others could run, ns.
const SLICE: u64 = 5_000_000;

static NEXT_LOOK: AtomicU64 = AtomicU64::new(0);

/// Looks at what came in meanwhile: a quiesce request, deadlines, the network if the last look was a while ago; and lets others run if
/// the current thread has run for long. Cheap enough for each call that may go on and on without waiting. No
/// [`KernelCell`](crate::cpu::KernelCell) may be lent out.
#[inline]
pub fn checkpoint() {
    checkpoint_at(time::now_ns());
}

/// [`checkpoint`] for who knows the time.
#[inline]
pub fn checkpoint_at(now: u64) {
    if quiesce::requested() || now >= NEXT_LOOK.load(Relaxed) {
        slow_checkpoint(now);
    }
}

#[cold]
fn slow_checkpoint(now: u64) {
    look(now);
    if running_for(now) > SLICE || quiesce::in_a_hurry() {
        give_way();
    }
}

/// Looks at everything that does not wait.
pub(super) fn look(now: u64) {
    quiesce::poll();
    fire(now);
    if now >= NEXT_LOOK.load(Relaxed) {
        NEXT_LOOK.store(now + LOOK_EVERY, Relaxed);
        platform::poll();
        let _ = net::poll(now);
    }
}

/// Waits for the world; returns when something may have made a thread ready. Threads run nowhere meanwhile.
pub(super) fn idle() {
    quiesce::poll();
    let now = time::now_ns();
    fire(now);
    let net_deadline = net::poll(now);
    let (ready, timer) = QUEUES.with(|q| (!q.ready.is_empty(), q.timers.next()));
    if ready {
        return;
    }
    let deadline = [net_deadline, timer, quiesce::deadline()].into_iter().flatten().min();
    if deadline.is_none() && !platform::can_wake() && !quiesce::can_wake() {
        fault::end(FaultKind::Deadlock);
    }
    platform::idle(deadline);
    // Whatever ended the wait, this was a look.
    let now = time::now_ns();
    NEXT_LOOK.store(now + LOOK_EVERY, Relaxed);
    let _ = net::poll(now);
    fire(now);
}
