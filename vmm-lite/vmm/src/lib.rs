//! The VMM: VMs on KVM that move between hosts.
//!
//! Each folder uses only those below it:
//!
//! - [`replication`]: a VM again by its inputs, which are kept in a journal
//! - [`snapshot`]: snapshots, restoring, clones, driven by the `migrate` crate's file format
//! - [`migration`]: moving a VM, driven by the `migrate` crate's state machines
//! - [`identity`]: this host's identity, and the hosts that it trusts
//! - [`capture`]: what changes in a VM's memory, and copies of a running VM
//! - [`vm`]: a virtual machine as a whole: the object that all other modules use
//! - [`boot`]: an image from its file into guest memory
//! - [`devices`]: control page, network device, TAP
//! - [`kvm`]: VM, vCPU, its registers, the dirty log
//! - [`memory`]: guest memory, and what the VMM knows about each of its pages
//! - [`host`]: the process and its threads: confinement, watchdog, scheduling, waiting
//! - `fail_point`: places at which tests make the process fail; only in builds with debug
//!   assertions

/// A place at which a test can make the process fail: see `fail_point`. In builds without debug
/// assertions it is nothing.
///
/// `else` states what to do where an operation fails, `after` what to do first if an action is
/// carried out here.
#[macro_export]
macro_rules! fail_point {
    ($name:literal) => {{
        #[cfg(debug_assertions)]
        $crate::fail_point!(@reach $name, false, (), ())
    }};
    ($name:literal, after $first:expr) => {{
        #[cfg(debug_assertions)]
        $crate::fail_point!(@reach $name, false, $first, ())
    }};
    ($name:literal, else $error:expr) => {{
        #[cfg(debug_assertions)]
        $crate::fail_point!(@reach $name, true, (), $error)
    }};
    (@reach $name:literal, $errs:literal, $first:expr, $error:expr) => {{
        const POINT: usize = $crate::fail_point::number($name, $errs);
        if let Some(action) = $crate::fail_point::chosen(POINT) {
            $first;
            if $crate::fail_point::happen(POINT, action) {
                $error
            }
        }
    }};
}

// First: its macros replace the standard library's in all that follows.
#[macro_use]
pub mod say;

pub mod boot;
pub mod capture;
pub mod devices;
#[cfg(debug_assertions)]
pub mod fail_point;
pub mod host;
pub mod identity;
pub mod kvm;
pub mod memory;
pub mod migration;
pub mod replication;
pub mod snapshot;
mod vcpu;
pub mod vm;
