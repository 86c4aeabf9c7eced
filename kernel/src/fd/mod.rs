//! Descriptors: the table, and what a descriptor stands for. Calls that have to wait, wait here.
//!
//! - [`descriptors`]: small numbers for what is open
//! - `table`: the program's descriptors, and what can be done with all of them
//! - `file`, `socket`, [`eventfd`], `console`: what they stand for
//! - `vectored`, `poll`: several buffers, several descriptors at once
#![forbid(unsafe_code)]

pub mod descriptors;
pub mod error;
pub mod eventfd;

#[cfg(target_os = "hermit")]
mod console;
#[cfg(target_os = "hermit")]
pub mod file;
#[cfg(target_os = "hermit")]
pub mod poll;
#[cfg(target_os = "hermit")]
pub mod socket;
#[cfg(target_os = "hermit")]
pub mod table;
#[cfg(target_os = "hermit")]
pub mod vectored;

pub use error::Errno;
#[cfg(target_os = "hermit")]
pub use table::{Description, Object, close, duplicate, get, open};
