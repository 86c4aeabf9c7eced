//! On the host there is no platform: what is printed is lost, nothing can be read, there is no
//! device.

use super::{ConsoleRead, Epoch};

/// Prints nothing.
pub fn console_write(_bytes: &[u8]) {}

/// Reads nothing.
pub fn console_read(_buffer: &mut [u8]) -> ConsoleRead {
    ConsoleRead::End
}

/// A read would not wait.
#[must_use]
pub fn console_readable() -> bool {
    true
}

/// No device.
#[must_use]
pub fn net_mmio() -> Option<usize> {
    None
}

/// Does nothing.
pub fn notify_net(_queue: u16) {}

/// The only one.
#[must_use]
pub fn generation() -> [u64; 2] {
    [0; 2]
}

/// The only one.
#[must_use]
pub fn epoch() -> Epoch {
    Epoch::default()
}
