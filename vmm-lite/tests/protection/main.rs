//! A protected VM, whole hosts, real clients and real arbiters: whatever fails, the clients'
//! connections go on, nothing that was acknowledged is lost, and one VM at a time speaks.
//!
//! - [`bed`]: two hosts, the VM on one of them, the standby on the other
//! - [`oracle`]: clients that know what they were told
//! - [`capture`], [`voices`]: what the network heard, and whether that may be
//! - [`arbiter`]: what can fail beside the two processes
//! - [`faults`], [`kills`]: one fault, and many of each at random moments
//! - [`points`]: a process dies or is frozen at each named place
//! - [`swaps`]: planned swaps, a new standby, the end of protection, a primary that was stopped
//! - [`moves`]: moves in lockstep
//! - [`again`]: a VM gets another standby on its own
//! - [`refusals`]: hostile, missing and wrong peers; the VM runs on

mod again;
mod arbiter;
mod bed;
mod capture;
mod faults;
mod kills;
mod moves;
mod oracle;
mod points;
mod refusals;
mod swaps;
mod voices;
