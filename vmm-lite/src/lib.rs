//! A KVM VMM for Rust unikernels that move between hosts.
//!
//! - [`vm`]: a virtual machine as a whole: the object that everything else holds
//! - [`kvm`]: VM, vCPU, its registers, the dirty log
//! - [`memory`]: guest memory and what is known of each of its pages
//! - [`boot`]: an image from its file into guest memory
//! - [`devices`]: control page, network device, TAP
//! - [`control`]: the socket through which other processes talk to a running VM
//! - [`migration`]: moving a VM, driven by the `migrate` crate's machines
//! - [`identity`]: who this host is, and which hosts it trusts
//! - [`metrics`]: a VM's figures for Prometheus
//! - [`snapshot`]: snapshots, restoring, clones, driven by the `migrate` crate's file format
//! - [`build`]: making images
//! - [`files`]: opening paths at which there may be something else than a file
//! - [`confine`]: what a process with a VM gives up: privileges, system calls
//! - [`watchdog`]: notices threads that do not answer
//! - [`cli`]: the verbs
//! - `fail_point`: places at which tests have the process fail; only in builds with debug assertions

/// A place at which a test can have the process fail: see `fail_point`. In builds without debug assertions it is nothing.
///
/// `else` says what to do where something cannot be done, `after` what comes first if something happens here.
macro_rules! fail_point {
    ($name:literal) => {{
        #[cfg(debug_assertions)]
        fail_point!(@reach $name, false, (), ())
    }};
    ($name:literal, after $first:expr) => {{
        #[cfg(debug_assertions)]
        fail_point!(@reach $name, false, $first, ())
    }};
    ($name:literal, else $error:expr) => {{
        #[cfg(debug_assertions)]
        fail_point!(@reach $name, true, (), $error)
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

// First: its macros take the place of the standard library's in all that follows.
#[macro_use]
mod say;

pub mod boot;
pub mod build;
pub mod cli;
pub mod confine;
pub mod control;
pub mod cpu_time;
pub mod devices;
#[cfg(debug_assertions)]
pub mod fail_point;
pub mod files;
pub mod identity;
pub mod kvm;
pub mod memory;
pub mod metrics;
pub mod migration;
mod random;
pub mod snapshot;
pub mod vm;
pub mod watchdog;
