//! What a guest has had of its host.

use super::Vm;
use crate::{host::cpu_time, kvm::Faults};
use std::{sync::atomic::Ordering::SeqCst, time::Duration};

/// What has come together since the machine was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Effort {
    /// CPU time of the vCPU's thread, in the guest and out of it.
    pub ran: Duration,
    /// Pages that KVM's second tables lacked.
    pub faults: Faults,
    /// Whether it waits at this moment, as it has nothing to do.
    pub idle: bool,
}

impl Vm {
    /// What the guest has had so far; `None` where KVM does not tell, and once the machine has
    /// ended. Costs the guest nothing.
    #[must_use]
    pub fn effort(&self) -> Option<Effort> {
        let faults = self.shared.page_faults.as_ref()?.read().ok()?;
        let ran = cpu_time::of(self.shared.thread.load(SeqCst)).ok()?;
        Some(Effort { ran, faults, idle: self.shared.is_waiting() })
    }
}
