//! KVM: the VM, its vCPU with its state, and the log of its writes.
//!
//! The VM has no interrupt controller and no timer: the guest needs none (see
//! `vmm_lite_interface::doorbell`), and a device that does not exist has no state to move.

mod alarm;
pub mod cpu;
mod dirty_log;
mod entry;
mod fault_cost;
mod host;
mod kick;
mod page_faults;
mod self_test;
mod state;
pub mod touch;
mod user_mode;
mod vcpu;
pub mod xsave;

pub use alarm::Alarm;
pub use dirty_log::{DirtyLog, DirtyView};
pub use fault_cost::FaultCost;
pub use host::Host;
pub use kick::{ImmediateExit, Kick};
pub use page_faults::{Faults, PageFaults};
pub use self_test::SelfTest;
pub use state::{InvariantVcpuState, VcpuState};
pub use vcpu::{Exit, Vcpu};

use std::{io, path::PathBuf};

/// Why KVM could not be used.
#[derive(thiserror::Error, Debug)]
pub enum Error {
    /// There is no KVM device.
    #[error(
        "{} does not exist: this host has no KVM, or its module is not loaded (try `modprobe \
         kvm_intel` or `kvm_amd`; in a container, pass the device in)", .0.display()
    )]
    Missing(PathBuf),
    /// The user has no permission to use the KVM device.
    #[error(
        "no permission to open {}: join the group that owns it (often `sudo usermod -aG kvm \
         $USER`, then log in again) or run as root", .0.display()
    )]
    NoPermission(PathBuf),
    /// The device exists but cannot be opened.
    #[error("cannot open {}", .0.display())]
    Open(PathBuf, #[source] io::Error),
    /// The API version is not the stable one.
    #[error("KVM speaks API version {0}, vmm-lite needs 12")]
    ApiVersion(i32),
    /// A capability that vmm-lite requires is missing.
    #[error("this host's KVM lacks {0}")]
    Lacks(&'static str),
    /// A call failed.
    #[error("KVM cannot {doing}")]
    Call {
        /// What was tried.
        doing: &'static str,
        /// The kernel's error.
        source: io::Error,
    },
    /// Memory for the VM cannot be had.
    #[error(transparent)]
    Memory(#[from] crate::memory::Error),
    /// A measurement did not go as expected.
    #[error("KVM does not run measurement code as it should: {0}")]
    Tried(String),
    /// KVM fails at something that every VM needs.
    #[error(
        "this host's KVM fails its self-test, and would end a VM that runs here: {step} came to \
         {came_to}. Another kernel may help, or where this host is itself virtual or emulated \
         another version of what it runs on"
    )]
    SelfTest {
        /// What was tried.
        step: &'static str,
        /// The outcome.
        came_to: String,
    },
    /// This host does not accept the vCPU state.
    #[error("the vCPU state has {0}")]
    State(&'static str),
}

/// Names a call that failed.
pub(crate) fn failed(doing: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> Error {
    move |e| Error::Call { doing, source: io::Error::from_raw_os_error(e.errno()) }
}
