//! Futexes: wait queues named by an address. Waiting and waking allocate nothing.

use super::{Thread, Wake, block, current, make_ready};
use crate::list::List;

/// Waiters of addresses that fall into the same bucket share a list.
const BUCKETS: usize = 256;

struct Buckets([List<Thread>; BUCKETS]);

// SAFETY: one vCPU, and threads switch only where they wait.
unsafe impl Sync for Buckets {}

static WAITING: Buckets = Buckets([const { List::new() }; BUCKETS]);

fn bucket(address: usize) -> &'static List<Thread> {
    // Fibonacci hashing; futexes are 4 bytes, so the lowest bits carry no information.
    let hash = (address >> 2).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (usize::BITS - 8);
    &WAITING.0[hash]
}

/// Waits at `address` until woken or until the deadline. The caller has compared the value, and
/// nothing ran since.
pub fn futex_wait(address: usize, deadline_ns: Option<u64>) -> Wake {
    let me = current();
    // SAFETY: the current thread is alive.
    unsafe { me.as_ref() }.futex.set(address);
    // SAFETY: it runs, so it is in no list, and it leaves this one before it runs again; the list
    // is a static.
    unsafe { bucket(address).push_back(me) };
    block(deadline_ns)
}

/// Wakes up to `count` threads, those first that have waited longest; returns how many.
pub fn futex_wake(address: usize, count: usize) -> usize {
    let bucket = bucket(address);
    let mut woken = 0;
    let mut next = bucket.first();
    while let Some(thread) = next
        && woken < count
    {
        // SAFETY: members of a list are alive.
        let waits_here = unsafe { thread.as_ref() }.futex.get() == address;
        // SAFETY: likewise.
        next = unsafe { List::after(thread) };
        if waits_here {
            // SAFETY: alive.
            unsafe { List::remove(thread) };
            make_ready(thread);
            woken += 1;
        }
    }
    woken
}
