//! Where the guest runs: under vmm-lite, where it is given a control page, or under QEMU, where it is not.

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

use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::sched::WaitQueue;

/// Threads that wait for console input.
pub static CONSOLE_READABLE: WaitQueue = WaitQueue::new();

/// How many threads wait for a socket.
static NETWORK_AWAITED: AtomicUsize = AtomicUsize::new(0);

/// Says, for as long as it is held, that the current thread waits for something that the network may bring. Where none does, and
/// nothing else can come from outside either, threads that all wait do so for ever.
#[derive(Debug)]
pub struct AwaitsNetwork(());

impl AwaitsNetwork {
    /// From now on.
    #[must_use]
    pub fn begin() -> Self {
        NETWORK_AWAITED.fetch_add(1, Relaxed);
        Self(())
    }
}

impl Drop for AwaitsNetwork {
    fn drop(&mut self) {
        NETWORK_AWAITED.fetch_sub(1, Relaxed);
    }
}

/// What a read of the console found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConsoleRead {
    /// So many bytes, at least one.
    Bytes(usize),
    /// Nothing yet: wait on [`CONSOLE_READABLE`].
    Empty,
    /// Nothing any more.
    End,
}
