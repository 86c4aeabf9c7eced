//! Whether any thread waits for the network.

use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// How many threads wait for a socket.
static AWAITED: AtomicUsize = AtomicUsize::new(0);

/// Says, for as long as it is held, that the current thread waits for something that the network
/// may bring. Threads that all wait, none of them for something from outside, wait for ever.
#[derive(Debug)]
pub struct AwaitsNetwork(());

impl AwaitsNetwork {
    /// From now on.
    #[must_use]
    pub fn begin() -> Self {
        AWAITED.fetch_add(1, Relaxed);
        Self(())
    }
}

impl Drop for AwaitsNetwork {
    fn drop(&mut self) {
        AWAITED.fetch_sub(1, Relaxed);
    }
}

/// Whether a thread holds an [`AwaitsNetwork`].
#[must_use]
pub fn any() -> bool {
    AWAITED.load(Relaxed) > 0
}
