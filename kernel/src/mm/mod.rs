//! Memory: the zone that has all of it by pages, the heap that takes the lowest of them, and the
//! stacks, which take the highest.

mod arena;
mod classes;
pub mod heap;
pub mod page_hints;
mod slab;
#[cfg(target_os = "hermit")]
pub mod stacks;
pub mod zone;

#[cfg(target_os = "hermit")]
mod global;
#[cfg(target_os = "hermit")]
pub use global::*;
