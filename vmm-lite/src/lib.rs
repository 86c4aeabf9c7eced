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
//! - [`confine`]: what a process with a VM gives up: privileges, system calls
//! - [`cli`]: the verbs

pub mod boot;
pub mod build;
pub mod cli;
pub mod confine;
pub mod control;
pub mod devices;
pub mod identity;
pub mod kvm;
pub mod memory;
pub mod metrics;
pub mod migration;
mod random;
pub mod snapshot;
pub mod vm;
