//! The CPU's architecture.
mod x86_64;
pub use x86_64::*;
