//! Threads on one vCPU, scheduled where they wait.
//!
//! A thread runs until it waits, yields or ends. When none can run, the one that noticed waits for the world on its own stack
//! (see [`world`]). Nothing here allocates but the birth of a thread.

#[cfg(target_os = "hermit")]
mod futex;
#[cfg(not(target_os = "hermit"))]
mod host;
#[cfg(target_os = "hermit")]
mod life;
#[cfg(target_os = "hermit")]
mod switch;
#[cfg(target_os = "hermit")]
mod table;
#[cfg(target_os = "hermit")]
mod thread;
pub mod timers;
#[cfg(target_os = "hermit")]
mod wait_queue;
#[cfg(target_os = "hermit")]
pub mod world;

#[cfg(not(target_os = "hermit"))]
pub use host::*;

#[cfg(target_os = "hermit")]
pub use {
    futex::{futex_wait, futex_wake},
    life::{SpawnError, alive, exit_thread, join, spawn, start},
    switch::{current_id, current_stack, sleep_until, yield_now},
    thread::{Thread, ThreadId},
    wait_queue::WaitQueue,
    world::checkpoint,
};

#[cfg(target_os = "hermit")]
pub(crate) use life::each_waiting_stack;
#[cfg(target_os = "hermit")]
use switch::{block, current, make_ready};

/// How a wait ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wake {
    /// Somebody woke the thread.
    Woken,
    /// The deadline passed first.
    TimedOut,
}
