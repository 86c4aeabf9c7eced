//! `sys_*`: what `std` and other crates call by way of hermit-abi, one file a group.
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
