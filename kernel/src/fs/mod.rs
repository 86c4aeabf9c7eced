//! Files in memory, good enough for `std::fs`.
//!
//! - [`tree`]: directories and files, by path and by number
//! - [`content`]: what is in a file
//! - [`entries`]: directories as `getdents64` gives them

pub mod content;
pub mod entries;
pub mod error;
pub mod tree;

pub use error::Error;
pub use tree::{Ino, Open, Stat, Tree};
