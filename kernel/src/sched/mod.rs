//! Threads on one vCPU, scheduled where they wait.
//!
//! A thread runs until it waits, yields or ends. When none can run, the one that noticed waits for the world on its own stack
//! (see [`world`]). Nothing here allocates but the birth of a thread.

mod thread;
mod timers;
mod wait_queue;

#[cfg(target_os = "hermit")]
mod futex;
#[cfg(target_os = "hermit")]
mod life;
#[cfg(target_os = "hermit")]
mod switch;
#[cfg(target_os = "hermit")]
mod table;
#[cfg(target_os = "hermit")]
pub mod world;

#[cfg(target_os = "hermit")]
pub use futex::{futex_wait, futex_wake};
#[cfg(target_os = "hermit")]
pub(crate) use life::each_waiting_stack;
#[cfg(target_os = "hermit")]
pub use life::{SpawnError, alive, exit_thread, join, spawn, start};
#[cfg(target_os = "hermit")]
pub use switch::{current_id, current_stack, sleep_until, yield_now};
pub use thread::{Thread, ThreadId};
pub use wait_queue::{WaitQueue, Wake};
#[cfg(target_os = "hermit")]
pub use world::checkpoint;

#[cfg(target_os = "hermit")]
use switch::{block, current, make_ready};

/// On the host nothing comes in: nothing to look at.
#[cfg(not(target_os = "hermit"))]
pub fn checkpoint() {}

/// On the host there are no kernel threads: nobody to yield to.
#[cfg(not(target_os = "hermit"))]
pub fn yield_now() {}
