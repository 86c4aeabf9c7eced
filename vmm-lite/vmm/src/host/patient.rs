//! Threads that do long work and must not delay others.
//!
//! Such threads copy memory while the guest runs and its clients send requests. On a host whose
//! CPUs are all busy, guest and clients would wait until a copying thread's time slice is over,
//! which takes milliseconds. A thread with long slices gets as much of the CPU as before, and a
//! thread that wakes with a shorter slice runs first (Linux 6.12 and later; earlier kernels only
//! keep such a thread's own wake-ups from preempting others).

use std::mem::size_of;

/// The longest slice that Linux grants.
const SLICE_NS: u64 = 100_000_000;

/// `struct sched_attr` of `sched_setattr(2)`, as in the call's first version.
#[repr(C)]
#[derive(Default)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// Gives the calling thread long slices, for good. Where the host refuses, nothing changes.
pub fn give_way() {
    let attr = SchedAttr {
        size: size_of::<SchedAttr>() as u32,
        policy: libc::SCHED_BATCH as u32,
        runtime: SLICE_NS,
        ..SchedAttr::default()
    };
    // SAFETY: a valid structure that states its own size, for the calling thread.
    unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_calling_thread_gets_long_slices() {
        // SAFETY: asks about the calling thread.
        let policy = || unsafe { libc::sched_getscheduler(0) };
        let other = std::thread::spawn(move || {
            give_way();
            policy()
        });
        assert_eq!(other.join().unwrap(), libc::SCHED_BATCH);
        assert_eq!(policy(), libc::SCHED_OTHER);
    }
}
