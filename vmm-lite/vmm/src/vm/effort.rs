//! The host's resources that a guest has used.

use super::Vm;
use crate::{host::cpu_time, kvm::Faults};
use std::{sync::atomic::Ordering::SeqCst, time::Duration};

/// The counts since the VM was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Effort {
    /// CPU time of the vCPU threads, in the guest and outside of it.
    pub ran: Duration,
    /// Pages that KVM's second-level tables lacked.
    pub faults: Faults,
    /// Whether all vCPUs are idle at this moment.
    pub idle: bool,
}

impl Vm {
    /// What the guest has used so far; `None` where KVM does not count, and once the VM has ended.
    /// Costs the guest nothing.
    #[must_use]
    pub fn effort(&self) -> Option<Effort> {
        let vcpus = &self.shared.vcpus;
        let idle = (0..vcpus.control.vcpus()).all(|member| vcpus.control.is_waiting(member));
        let none = Effort { idle, ..Effort::default() };
        vcpus.threads.iter().try_fold(none, |sum, thread| {
            let faults = thread.page_faults.as_ref()?.read().ok()?;
            let ran = cpu_time::of(thread.id.load(SeqCst)).ok()?;
            Some(Effort { ran: sum.ran + ran, faults: sum.faults.with(faults), ..sum })
        })
    }
}
