//! What belongs to a CPU: cells that only one CPU touches, and thread-local storage.

pub mod cell;
#[cfg(target_os = "hermit")]
pub mod tls;

pub use cell::KernelCell;
