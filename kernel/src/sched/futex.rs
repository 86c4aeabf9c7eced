//! Futexes: wait queues named by an address.

use alloc::collections::{BTreeMap, VecDeque};

use super::{ThreadId, Wake, block, current, look_around, wake};
use crate::cell::KernelCell;

static QUEUES: KernelCell<BTreeMap<usize, VecDeque<ThreadId>>> = KernelCell::new(BTreeMap::new());

/// Waits at `address` until woken or until the deadline. The caller has compared the value: nothing ran since.
pub fn futex_wait(address: usize, deadline_ns: Option<u64>) -> Wake {
    let id = current();
    QUEUES.with(|q| q.entry(address).or_default().push_back(id));
    if !block(deadline_ns) {
        return Wake::Woken;
    }
    QUEUES.with(|q| {
        if let Some(queue) = q.get_mut(&address) {
            queue.retain(|waiting| *waiting != id);
            if queue.is_empty() {
                q.remove(&address);
            }
        }
    });
    look_around();
    Wake::TimedOut
}

/// Wakes up to `count` threads; returns how many.
pub fn futex_wake(address: usize, count: usize) -> usize {
    let mut woken = 0;
    while woken < count {
        let next = QUEUES.with(|q| {
            let queue = q.get_mut(&address)?;
            let id = queue.pop_front();
            if queue.is_empty() {
                q.remove(&address);
            }
            id
        });
        let Some(id) = next else { break };
        wake(id);
        woken += 1;
    }
    woken
}
