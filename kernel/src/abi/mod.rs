//! `sys_*`: what `std` and others call by way of the hermit-abi crate. One file a group; each function checks what it is given
//! and hands it on.
//!
//! Errors are negative numbers of [`hermit_abi::errno`].

mod entropy;
mod futex;
mod hooks;
mod memory;
mod pending;
mod process;
mod threads;
mod time;
