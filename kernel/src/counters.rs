//! Counters of the guest that vmm-lite shows to its clients.

use core::sync::atomic::Ordering::Relaxed;

use crate::{mm, net, platform, sched};

/// Writes the counters to the control page, if there is one.
pub fn publish() {
    let Some(control) = platform::control() else { return };
    let (used, free) = mm::usage();
    control.stats.threads.store(sched::alive() as u64, Relaxed);
    control.stats.heap_used.store(used as u64, Relaxed);
    control.stats.heap_free.store(free as u64, Relaxed);
    control.stats.sockets.store(net::socket_count() as u64, Relaxed);
}
