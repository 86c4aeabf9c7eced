//! Where the guest runs: under vmm-lite or under QEMU.

use crate::sched::WaitQueue;

/// Threads that wait for console input.
pub static CONSOLE_READABLE: WaitQueue = WaitQueue::new();

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

/// Prints all of `bytes`.
pub fn console_write(_bytes: &[u8]) {
    unimplemented!()
}

/// Reads what has arrived, without waiting. `buffer` must not be empty.
pub fn console_read(_buffer: &mut [u8]) -> ConsoleRead {
    unimplemented!()
}

/// Whether [`console_read`] would return something else than [`ConsoleRead::Empty`].
#[must_use]
pub fn console_readable() -> bool {
    unimplemented!()
}

/// Address of the registers of the virtio-mmio network device, if there is one. Mapped for the driver.
#[must_use]
pub fn net_mmio() -> Option<usize> {
    unimplemented!()
}

/// Has the network device look at its queues: under vmm-lite with the next doorbell, under QEMU by the device's notify register,
/// for queue number `queue`.
pub fn notify_net(_queue: u16) {
    unimplemented!()
}
