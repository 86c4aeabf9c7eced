//! Measures how the guest returns to full speed after a move.

use crate::{
    kvm::FaultCost,
    vm::{Effort, Vm},
};
use migrate::brownout::{Sample, Settled, Watch};
use std::time::{Duration, Instant};

/// See the module. A sample costs this host some microseconds, and the guest nothing.
#[derive(Debug)]
pub(super) struct Settling {
    watch: Watch,
    cost: FaultCost,
    /// The counts before the guest's first instruction.
    before: Effort,
    began: Instant,
}

impl Settling {
    /// For a guest that has not run yet. `None` where this cannot be measured.
    pub fn of(vm: &Vm, cost: Option<FaultCost>) -> Option<Self> {
        let (cost, before) = (cost?, vm.effort()?);
        Some(Self { watch: Watch::default(), cost, before, began: Instant::now() })
    }

    /// Measures from now on: work on the guest's behalf is not counted as the guest's.
    pub fn again(self, vm: &Vm) -> Option<Self> {
        Some(Self { before: vm.effort()?, ..self })
    }

    /// The first instruction was at `at`.
    pub fn begin(mut self, at: Instant) -> Self {
        self.began = at;
        self
    }

    /// When to take the next sample.
    pub fn due(&self) -> Instant {
        self.began + self.watch.due()
    }

    /// Takes a sample, if it is time. The guest has waited this long for missing pages.
    pub fn look(&mut self, vm: &Vm, waited: Duration) -> Option<Settled> {
        let now = Instant::now();
        if now < self.due() {
            return None;
        }
        let Some(effort) = vm.effort() else { return Some(Settled::UNKNOWN) };
        let faults = effort.faults.since(self.before.faults);
        self.watch.look(Sample {
            at: now.saturating_duration_since(self.began),
            ran: effort.ran.saturating_sub(self.before.ran),
            page_faults: faults.count,
            filling: self.cost.of(faults),
            waited,
            idle: effort.idle,
        })
    }
}
