//! Real-time priority for the threads of a switch.
//!
//! While a guest is stopped, all time that one of these threads waits for a busy CPU is blackout.
//! Where the host permits it (root, CAP_SYS_NICE, RLIMIT_RTPRIO), they run first for the duration
//! of the switch, which the VMM bounds by a timeout; elsewhere nothing changes.

use super::this_thread;

/// The end of a copy at which a thread works. It decides which thread runs first where both ends
/// are on one host. The priorities are the lowest of the real-time ones: above all ordinary
/// threads, below the host's own real-time threads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// Polls for the other end, without sleep.
    Destination = 1,
    /// Has the guest, which runs until the thread stops it.
    Source = 2,
}

/// A thread with real-time priority until this is dropped.
#[derive(Debug, Default)]
pub struct Urgent(Option<Before>);

/// The thread's scheduling before.
#[derive(Clone, Copy, Debug)]
struct Before {
    thread: i32,
    policy: i32,
    priority: i32,
}

impl Urgent {
    /// Another thread.
    #[must_use]
    pub fn other(thread: i32, side: Side) -> Self {
        Self(raise(thread, side))
    }

    /// The calling thread.
    #[must_use]
    pub fn this(side: Side) -> Self {
        Self(raise(this_thread(), side))
    }
}

fn raise(thread: i32, side: Side) -> Option<Before> {
    let mut param = libc::sched_param { sched_priority: 0 };
    // SAFETY: plain system calls on a thread of this process; if it has ended they fail.
    let policy = unsafe {
        let policy = libc::sched_getscheduler(thread);
        if policy < 0 || libc::sched_getparam(thread, &raw mut param) != 0 {
            return None;
        }
        policy
    };
    if matches!(policy & !libc::SCHED_RESET_ON_FORK, libc::SCHED_FIFO | libc::SCHED_RR) {
        return None;
    }
    let before = Before { thread, policy, priority: param.sched_priority };
    set(thread, libc::SCHED_RR | libc::SCHED_RESET_ON_FORK, side as i32).then_some(before)
}

fn set(thread: i32, policy: i32, priority: i32) -> bool {
    let param = libc::sched_param { sched_priority: priority };
    // SAFETY: as above; the parameters outlive the call.
    unsafe { libc::sched_setscheduler(thread, policy, &raw const param) == 0 }
}

impl Drop for Urgent {
    fn drop(&mut self) {
        if let Some(before) = self.0 {
            // A process that may raise a thread may lower it, but may not always make its children
            // inherit real-time priority again, which nothing here needs. If the thread has ended
            // there is nothing to do.
            set(before.thread, before.policy | libc::SCHED_RESET_ON_FORK, before.priority);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> i32 {
        // SAFETY: queries the calling thread.
        unsafe { libc::sched_getscheduler(0) }
    }

    #[test]
    fn urgency_ends() {
        let before = policy();
        let urgent = Urgent::this(Side::Source);
        if urgent.0.is_none() {
            return vmm_lite_lab::skipped("urgency", "this user has no real-time priority");
        }
        assert_eq!(policy(), libc::SCHED_RR | libc::SCHED_RESET_ON_FORK);
        drop(urgent);
        assert_eq!(policy() & !libc::SCHED_RESET_ON_FORK, before);
    }
}
