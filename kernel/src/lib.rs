//! The unikernel that `vmm-lite build` links under a std program.
//!
//! - [`arch`]: the monitor at CPL 0 in assembly, page tables, faults, context switch, ports
//! - [`platform`]: what differs between vmm-lite and QEMU
//! - [`mm`], [`sched`], [`time`], [`entropy`], [`params`]: memory, threads, clocks, random numbers, boot parameters
//! - [`net`], [`fs`]: sockets; files in memory, descriptors
//! - `quiesce`: what happens around the moments at which the VM stands still
//! - `abi`: `sys_*`, what `std` calls
//!
//! All Rust runs at CPL 3, in one address space with the program and on its threads' stacks: a call of the kernel is a call of a function.
//! There is one vCPU, threads switch where they wait, and no interrupt ever runs Rust; that is what [`cpu::KernelCell`] stands on.
//!
//! # From this crate to an image
//! It is compiled as a static library for the stock hermit target and prelinked into one object that exports `sys_*` and `_start` and
//! nothing else, so that its `core` does not meet the program's (`vmm-lite/build.rs`). Programs are linked with that object
//! (`vmm-lite/src/build/`). On the host it is an ordinary library, of which the parts that need no guest can be tested; what only makes sense
//! in the guest is compiled for `target_os = "hermit"` alone.
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod abi;
pub mod arch;
pub mod cpu;
pub mod drivers;
pub mod entropy;
pub mod fd;
pub mod fs;
pub mod list;
pub mod mm;
pub mod net;
pub mod params;
pub mod platform;
pub mod sched;
pub mod time;

#[cfg(target_os = "hermit")]
mod boot;
#[cfg(target_os = "hermit")]
pub mod counters;
#[cfg(target_os = "hermit")]
pub mod events;
#[cfg(target_os = "hermit")]
pub mod fault;
#[cfg(target_os = "hermit")]
pub mod image;
#[cfg(target_os = "hermit")]
pub mod process;
#[cfg(target_os = "hermit")]
pub mod quiesce;
