//! Real-time priority for the threads of a switch.
//!
//! While a guest stands, every time one of these threads waits for a CPU that something else uses
//! is blackout. Where the host lets this process do so (root, CAP_SYS_NICE, RLIMIT_RTPRIO) they go
//! first for as long as the switch takes, which is bounded by the patience with the guest;
//! elsewhere nothing changes.

use super::this_thread;

/// At which end of a copy a thread works, which decides who goes first where both ends are on one
/// host. The priorities are the lowest of the real-time ones: before everything ordinary, behind
/// whatever the host itself has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// Waits for the other, without sleep.
    Destination = 1,
    /// Has the guest, which runs until it is stopped.
    Source = 2,
}

/// A thread that goes first until this is dropped.
#[derive(Debug, Default)]
pub struct Urgent(Option<Before>);

/// What a thread was before.
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
    // SAFETY: plain system calls on a thread of this process; one that has ended makes them fail.
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
            // A process that may raise a thread may lower it, but not always make its children
            // inherit that again, which nobody here needs. If the thread has ended there is nothing
            // to do.
            set(before.thread, before.policy | libc::SCHED_RESET_ON_FORK, before.priority);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> i32 {
        // SAFETY: asks about the calling thread.
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
