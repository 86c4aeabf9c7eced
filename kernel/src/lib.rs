//! The unikernel that `vmm-lite build` links under a std program.
//!
//! From the lowest layer up; which may use which is in `arrows` beside this folder, and checked:
//!
//! - [`arch`], `image`, [`list`]: what takes assembly (the monitor at CPL 0, page tables, faults,
//!   context switch, ports); the image's headers; linked lists
//! - [`samples`], [`time`]: values taken from the CPU; clocks
//! - [`cpu`]: cells, thread-local storage
//! - [`mm`], [`drivers`], [`params`]: heap, stacks and page hints; devices; boot parameters
//! - [`sched`]: threads, futexes, deadlines
//! - [`platform`]: what differs between vmm-lite and QEMU
//! - [`entropy`], [`fs`], [`net`]: random numbers; files in memory; sockets
//! - [`fd`]: descriptors, and what they stand for
//! - `quiesce`, `counters`: before a pause and after it; what vmm-lite shows of the guest
//! - `fault`: faults and panics
//! - `events`, `process`: checkpoints and the scheduler's idle work; the end of the program
//! - [`abi`], `boot`: `sys_*`, what `std` calls; from the monitor to `main`
//!
//! All Rust runs at CPL 3, in one address space with the program and on its threads' stacks: a call
//! of the kernel is a call of a function. There is one vCPU, threads switch where they wait, and no
//! interrupt ever runs Rust; [`cpu::KernelCell`] relies on that.
//!
//! # From this crate to an image
//! It is compiled as a static library for the stock hermit target and prelinked into one object
//! that exports `sys_*` and `_start` and nothing else, so that its `core` does not meet the
//! program's (`vmm-lite/image-builder/build.rs`). Programs are linked with that object
//! (`vmm-lite/image-builder/`). On the host it is an ordinary library, of which the parts that need
//! no guest can be tested; what only makes sense in the guest is compiled for `target_os =
//! "hermit"` alone.
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
pub mod samples;
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
