//! A VM that is replayed for a debugger.

use super::{Error, Paused, Vm};
use crate::{
    kvm::VcpuState,
    vcpu::{DebugLink, Debugged, Orders},
};
use std::sync::Arc;

impl Paused<'_> {
    /// Has the VM, which is to replay a log, stop for a debugger: as it is
    /// [ordered](Self::order), and at the end of its log.
    pub fn debug(&mut self, link: &Arc<DebugLink>) {
        self.first().1.debug(Arc::clone(link));
    }

    /// Has a debugged VM do this when it is resumed.
    pub fn order(&mut self, orders: Orders) {
        self.first().1.order(orders);
    }

    /// Where a debugged VM is. `None`: it is none.
    pub fn debugged(&mut self) -> Option<Debugged> {
        self.first().1.debugged()
    }

    /// It is not debugged any more, and replays its log to the end when it is resumed.
    pub fn end_debugging(&mut self) {
        self.first().1.end_debugging();
    }

    /// The state of its vCPU as it is; [`capture`](Self::capture) returns one that another VM can
    /// continue.
    ///
    /// # Errors
    /// [`Error::Kvm`].
    pub fn registers(&mut self) -> Result<VcpuState, Error> {
        Ok(self.first().1.registers()?)
    }
}

impl Vm {
    /// Waits until it does not run. Returns whether it can go on, and has not ended.
    #[must_use]
    pub fn wait_stopped(&self) -> bool {
        let stopped =
            |phase: &crate::vcpu::Phase, _| (!phase.is_running()).then(|| phase.is_paused());
        self.shared.vcpus.control.wait_until(None, stopped).unwrap_or(false)
    }
}
