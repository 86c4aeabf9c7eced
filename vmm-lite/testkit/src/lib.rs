//! Support for several tests.
//!
//! - [`guest`](mod@crate::guest): hand-written guests, a few instructions in an ELF file
//! - [`counting`], [`greeting`]: two of them that several tests run
//! - [`net`]: a network namespace of a test's own, and the driver's side of the network device
//! - [`client`]: a client of a VM that notices lost data; [`hosts`]: a VM with it on two hosts
//! - [`meaning`]: when two vCPU states mean the same

#![allow(missing_docs, reason = "tests: what a name does not say is in a comment where it matters")]

pub mod client;
pub mod counting;
pub mod greeting;
pub mod guest;
pub mod hosts;
pub mod meaning;
pub mod net;

// Names that the macros use.
#[doc(hidden)]
pub use vmm_lite_interface;
