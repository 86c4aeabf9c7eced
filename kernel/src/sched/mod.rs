//! Threads on one vCPU, scheduled where they wait.
//!
//! A thread runs until it waits, yields or ends. When none is ready, the one that noticed does the
//! idle work that was passed to `start`, on its own stack. Only `spawn` allocates.

#[cfg(target_os = "hermit")]
mod futex;
#[cfg(not(target_os = "hermit"))]
mod host;
#[cfg(target_os = "hermit")]
mod lifecycle;
pub mod readiness;
#[cfg(target_os = "hermit")]
mod switch;
#[cfg(target_os = "hermit")]
mod table;
#[cfg(target_os = "hermit")]
mod thread;
pub mod timers;
#[cfg(target_os = "hermit")]
mod wait_queue;

#[cfg(not(target_os = "hermit"))]
pub use host::*;

#[cfg(target_os = "hermit")]
pub use {
    futex::{futex_wait, futex_wake},
    lifecycle::{SpawnError, alive, exit_thread, join, spawn, start},
    switch::{
        any_ready, current_id, current_stack, last_error, next_deadline, running_for,
        set_last_error, sleep_until, wake_due, yield_now,
    },
    thread::{Thread, ThreadId},
    wait_queue::WaitQueue,
};

#[cfg(target_os = "hermit")]
pub(crate) use lifecycle::each_waiting_stack;
#[cfg(target_os = "hermit")]
use switch::{block, current, make_ready};

/// How a wait ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wake {
    /// Another thread woke it.
    Woken,
    /// The deadline passed first.
    TimedOut,
}
