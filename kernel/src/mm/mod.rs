//! Memory: the heap that grows up, the chunks of stacks that are taken from the top down, and the stacks themselves.

mod classes;
pub mod heap;
mod slab;
#[cfg(target_os = "hermit")]
pub mod stacks;
pub mod zone;

#[cfg(target_os = "hermit")]
mod global;
#[cfg(target_os = "hermit")]
pub use global::*;
