//! What the guest kernel and the VMM share, defined once.
//!
//! - [`control`]: the control page, the only memory both sides write while the guest runs
//! - [`doorbell`]: the one port the guest writes to reach the VMM
//! - [`note`]: the ELF note that states the interface version of an image
//! - [`params`]: boot parameters, carried in the PVH command line (the same under QEMU's `-append`)
//! - [`layout`]: guest-physical addresses that vmm-lite chooses
//! - [`samples`]: values that the guest takes from the CPU, for recording and replaying it
//! - [`qemu`]: ports and quiesce lines for the same image under QEMU
//!
//! The guest side trusts what it reads here; the VMM side must not (rule R4): every field that the
//! guest writes is unverified until checked.
#![no_std]

pub mod control;
pub mod doorbell;
pub mod layout;
pub mod note;
pub mod params;
pub mod qemu;
pub mod samples;

/// Version of everything in this crate. An image contains it in its [`note`]; the VMM refuses an
/// image with another one, and `migrate` refuses a peer that does not know it.
pub const INTERFACE_VERSION: u32 = 2;
