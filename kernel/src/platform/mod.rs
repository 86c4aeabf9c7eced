//! Where the guest runs: under vmm-lite, where it is given a control page, or under QEMU, where it
//! is not.

pub mod console;
#[cfg(target_os = "hermit")]
mod guest;
#[cfg(not(target_os = "hermit"))]
mod host;
#[cfg(target_os = "hermit")]
pub mod pvh;
#[cfg(target_os = "hermit")]
mod qemu;
#[cfg(target_os = "hermit")]
mod vmm_lite;

#[cfg(target_os = "hermit")]
pub use guest::*;
#[cfg(not(target_os = "hermit"))]
pub use host::*;

use crate::sched::WaitQueue;

/// Threads that wait for console input.
pub static CONSOLE_READABLE: WaitQueue = WaitQueue::new();

/// The host's part of the seed of random numbers. When it changes, a copy of the guest's memory may
/// exist that holds all secrets drawn before: the guest is a copy, or has been copied.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Epoch {
    /// Generation id.
    pub generation: [u64; 2],
    /// Random words of the host's.
    pub host: [u64; 8],
}

/// What a read of the console found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConsoleRead {
    /// That many bytes, at least one.
    Bytes(usize),
    /// Nothing yet: wait on [`CONSOLE_READABLE`].
    Empty,
    /// Nothing any more.
    End,
}
