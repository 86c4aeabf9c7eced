//! The unikernel that `vmm-lite build` links under a std program.
//!
//! On the host it is an ordinary library, of which the parts that need no guest can be tested; what only makes sense
//! in the guest (entry, `sys_*`, allocator, panic handler) is compiled for `target_os = "hermit"` alone.
//!
//! # From this crate to an image
//! An archive for the stock hermit target, prelinked into one object that exports `sys_*` and `_start` and nothing else:
//!
//! ```text
//! RUSTC_BOOTSTRAP=1 cargo rustc -p vmm-lite-kernel --release --crate-type staticlib \
//!     --target x86_64-unknown-hermit -Zbuild-std=core,alloc
//! ld -r --whole-archive libkernel.a -o kernel.o
//! objcopy --wildcard --keep-global-symbol='sys_*' --keep-global-symbol=_start kernel.o
//! ```
//! The program, with its own `std`, is then built for the same target and linked with that object:
//!
//! ```text
//! RUSTFLAGS="-Clinker=ld -Clinker-flavor=ld -Crelocation-model=static -Clink-arg=--no-dynamic-linker -Clink-arg=-zdefs
//!     -Clink-arg=-znorelro -Clink-arg=--require-defined=_start -Clink-arg=-Ttext-segment=0x100000 -Clink-arg=kernel.o" \
//! RUSTC_BOOTSTRAP=1 cargo build --target x86_64-unknown-hermit \
//!     -Zbuild-std=std,panic_abort -Zbuild-std-features=compiler-builtins-mem
//! ```
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod cell;
pub mod entropy;
pub mod params;
pub mod platform;
pub mod sched;
pub mod time;
