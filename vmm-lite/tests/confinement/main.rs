//! What a process with a VM has given up: a system call outside a thread's filter kills it, and all
//! of its functions still work.
//!
//! - [`process`]: VMs with a hand-written guest, started in every way
//! - [`trace`]: makes a thread issue a call that its filter lacks
//! - [`calls`] that a filter lacks
//! - [`jail`]: a process in a jail
//! - [`rights`]: users, capabilities, descriptors
//! - [`arrived`]: a received VM has no more of these than a started one
//! - [`verbs`]: all verbs still work

mod arrived;
mod calls;
mod jail;
mod process;
mod rights;
mod trace;
mod verbs;
