//! The unikernel that `vmm-lite build` links under a std program.
//!
//! Built as an archive for the stock hermit target, prelinked into one object that exports `sys_*` and `_start` only:
//!
//! ```text
//! cargo rustc -p vmm-lite-kernel --crate-type staticlib --release --target x86_64-unknown-hermit -Zbuild-std=core,alloc
//! ld -r --whole-archive libkernel.a -o kernel.o
//! objcopy --wildcard --keep-global-symbol='sys_*' --keep-global-symbol=_start kernel.o
//! ```
//! On the host it is an ordinary library, of which only the parts that need no guest are there.
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod arch;
pub mod cell;
pub mod console;
pub mod dont_care;
pub mod entropy;
pub mod fs;
pub mod list;
pub mod mm;
pub mod net;
pub mod params;
pub mod platform;
pub mod sched;
pub mod time;
pub mod timers;
pub mod unsupported;

#[cfg(target_os = "hermit")]
mod abi;
#[cfg(target_os = "hermit")]
mod boot;
#[cfg(target_os = "hermit")]
pub mod fault;
#[cfg(target_os = "hermit")]
pub mod image;
#[cfg(target_os = "hermit")]
mod panic;
#[cfg(target_os = "hermit")]
pub mod quiesce;
#[cfg(target_os = "hermit")]
mod tls;

/// Memory that the kernel needs beyond the image to start, in KiB: tables, first heap, main stack.
pub const MIN_FREE_KIB: u32 = 512;
