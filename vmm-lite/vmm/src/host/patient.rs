//! Threads whose work is long, and for which nobody is to wait.
//!
//! Memory is copied while the guest runs and its clients ask it things. On a host whose CPUs are
//! all busy each of them would wait until a copying thread's time slice is over, which is
//! milliseconds. A thread with long slices gets as much of the CPU as before, and whoever wakes
//! with a shorter one goes first (Linux 6.12 and later; earlier ones leave it at not letting such a
//! thread's own waking interrupt others).

use std::mem::size_of;

/// The longest slice that Linux gives.
const SLICE_NS: u64 = 100_000_000;

/// `struct sched_attr` of `sched_setattr(2)`, up to what the first version of the call had.
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

/// Makes the calling thread one of these, for good. Where the host does not let it, it stays as it
/// is.
pub fn give_way() {
    let attr = SchedAttr {
        size: size_of::<SchedAttr>() as u32,
        policy: libc::SCHED_BATCH as u32,
        runtime: SLICE_NS,
        ..SchedAttr::default()
    };
    // SAFETY: a valid structure of the size that it says, for the calling thread.
    unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_calling_thread_that_is_patient() {
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
