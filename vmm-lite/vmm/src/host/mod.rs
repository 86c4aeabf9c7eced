//! The host, as the process of a VM sees it.
//!
//! - [`confine`]: what the process gives up: privileges, system calls
//! - [`watchdog`]: notices threads that do not answer
//! - [`poll`]: waiting for several descriptors at once
//! - [`urgent`], [`patient`]: threads that go first, and threads that nobody waits for
//! - [`cpu_time`], [`random`]

pub mod confine;
pub mod cpu_time;
mod errors;
pub mod patient;
pub mod poll;
pub mod random;
mod thread;
pub mod urgent;
pub mod watchdog;

pub use errors::with_causes;
pub use thread::this_thread;
