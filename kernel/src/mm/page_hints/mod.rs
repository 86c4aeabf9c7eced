//! Page hints: which pages' content need not be kept when the guest is moved or saved.
//!
//! Free memory is hinted at all times, by the zone's owner; what else need not be kept while the
//! guest is quiescent is hinted by `quiesce` and taken back after it.

pub mod bitmap;
#[cfg(target_os = "hermit")]
mod global;

#[cfg(target_os = "hermit")]
pub use global::{clear, init, set};
