//! The host, as seen by a VM's process.
//!
//! - [`confine`]: what the process gives up: privileges, system calls
//! - [`beside`]: processes that work for it
//! - [`watchdog`]: reports threads that do not answer
//! - [`poll`]: waits for several descriptors at once
//! - [`urgent`], [`patient`]: real-time threads, and threads that let others run first
//! - [`inheriting`]: a lock that real-time threads share with others
//! - [`cpu_time`], [`random`]

pub mod beside;
pub mod confine;
pub mod cpu_time;
mod errors;
pub mod inheriting;
pub mod patient;
pub mod poll;
pub mod random;
mod thread;
pub mod urgent;
pub mod watchdog;

pub use errors::with_causes;
pub use thread::this_thread;
