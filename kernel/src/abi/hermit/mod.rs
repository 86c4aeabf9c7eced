//! `sys_*`: what `std` and others call by way of the hermit-abi crate. One file a group; each function checks what it is given
//! and hands it on.
//!
//! Errors are negative numbers of [`hermit_abi::errno`].

mod address;
mod dns;
mod entropy;
mod errno;
mod eventfd;
mod fd;
mod file;
mod futex;
mod hooks;
mod memory;
mod poll;
mod process;
mod socket;
mod sockopt;
mod threads;
mod time;
mod user;
