//! x86-64: monitor, tables, faults, context switch, ports. The unsafe floor.

pub mod context;
pub mod cpu;
pub mod fault;
#[cfg(target_os = "hermit")]
mod monitor;
pub mod paging;
pub mod port;
#[cfg(target_os = "hermit")]
pub mod touch;

#[cfg(target_os = "hermit")]
pub use monitor::{halt, lock, map_chunk, unmap_chunk};
