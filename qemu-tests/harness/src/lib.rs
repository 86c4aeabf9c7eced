//! QEMU as the reference: starts vmm-lite images under `qemu-system-x86_64 -M microvm`, controls it
//! by QMP, quiesces the guest over its second serial port, and migrates it to another QEMU process.
//!
//! The tests of this crate use it, and so does the benchmark that compares QEMU's moves with
//! vmm-lite's.
//!
//! - [`machine`]: one QEMU process and its configuration
//! - [`boot_params`]: what the image is told, in the format that vmm-lite uses too
//! - [`console`], [`quiesce`]: the two serial ports
//! - [`qmp`]: the monitor protocol
//! - [`migration`]: QEMU's live migration from one [`Machine`] to another, and its measurements
//! - [`save`]: QEMU's way to save a running guest to a file, and to start from it
//! - [`dirtier`]: what a guest that runs `apps/dirtier` saw of a move
//! - [`host`]: what this host supports

pub mod boot_params;
pub mod console;
pub mod dirtier;
mod error;
pub mod host;
mod lines;
pub mod machine;
pub mod migration;
mod process;
pub mod qmp;
pub mod quiesce;
pub mod save;

pub use boot_params::BootParams;
pub use error::{Error, Result};
pub use machine::{Accel, Config, Exit, Machine, Net};
