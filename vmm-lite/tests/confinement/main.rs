//! What a process with a VM has given up: a call that a thread has no business to make kills it,
//! and everything it is for goes on working without.
//!
//! - [`process`]: VMs by a guest made by hand, however they come to be
//! - [`trace`]: has a thread make a call that is not its own
//! - [`calls`] that a filter does not have
//! - [`jail`]: a process in one
//! - [`rights`]: users, capabilities, descriptors
//! - [`arrived`]: a VM that was received has no more of these than one that was run
//! - [`verbs`]: everything still works

mod arrived;
mod calls;
mod jail;
mod process;
mod rights;
mod trace;
mod verbs;
