//! A VM that is replayed for a debugger, and states from which it can be replayed again.

use super::{Error, Opened, journal};
use crate::{
    capture,
    devices::console::Console,
    kvm::Host,
    memory::PAGE,
    snapshot,
    vm::{
        DebugLink, Debugged, Moment, Orders, Paused, Position, Resources, Resume, ResumeReason, Vm,
        VmState,
    },
};
use std::{sync::Arc, time::Duration};

/// A VM as it is right after a record.
pub(super) struct Checkpoint {
    pub moment: Moment,
    at: Position,
    state: VmState,
    /// Its touched pages; `None`: those of the journal's snapshot.
    pages: Option<Vec<(usize, Box<[u8; PAGE]>)>>,
    /// Bytes that it had printed.
    printed: u64,
}

impl std::fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checkpoint").field("moment", &self.moment).finish_non_exhaustive()
    }
}

impl Checkpoint {
    /// Where the run begins.
    pub fn base(opened: &Opened) -> Self {
        let at = opened.at();
        let (moment, state) = (Moment::after(at.record), opened.guest.state.clone());
        Self { moment, at, state, pages: None, printed: 0 }
    }

    /// Of a VM that has not run since a record. `None`: it is just taking a sample, which a copy
    /// would begin anew.
    pub fn of(run: &Run) -> Result<Option<Self>, Error> {
        let mut held = run.hold()?;
        let (Some(debugged), Some(at)) = (held.debugged(), held.position()?) else {
            return Ok(None);
        };
        let state = held.capture()?;
        let same = held.registers()?.regs == state.vcpus[0].regs;
        if !same || !debugged.at.is_at_record() || at.samples > 0 {
            return Ok(None);
        }
        let mut pages = Vec::new();
        let ram = run.vm.ram();
        if let Some(complete) = ram.complete() {
            let touched = capture::touched(complete)?;
            for page in touched.iter() {
                let mut content = Box::new([0; PAGE]);
                ram.read_page(page, &mut content).map_err(crate::vm::Error::from)?;
                pages.push((page, content));
            }
        }
        let printed = run.printed_before + run.vm.console().printed();
        Ok(Some(Self { moment: debugged.at, at, state, pages: Some(pages), printed }))
    }
}

/// A VM that is replayed.
#[derive(Debug)]
pub(super) struct Run {
    pub vm: Vm,
    /// Bytes that were printed before.
    pub printed_before: u64,
    /// It prints by itself.
    pub prints: bool,
}

impl Run {
    /// The VM at `checkpoint`; it does not run yet.
    pub fn from(
        checkpoint: &Checkpoint,
        opened: &Opened,
        host: &Host,
        link: &Arc<DebugLink>,
    ) -> Result<Self, Error> {
        let identity = opened.guest.manifest.identity.clone();
        let resources = Resources::for_replay(host.clone(), &identity);
        let vm = Vm::prepare_with(&resources, identity, Console::new(None), None)?;
        let memory = vm.unstarted_memory().ok_or(journal::Error::Base(snapshot::Error::Ran))?;
        match &checkpoint.pages {
            None => opened.load(memory)?,
            Some(pages) => {
                for (page, content) in pages {
                    memory.write_page(*page, content).map_err(crate::vm::Error::from)?;
                }
            }
        }
        let mut held = vm.hold()?;
        held.apply(&checkpoint.state, Duration::ZERO)?;
        let records = opened.records_after(checkpoint.at.record, vm.ram())?;
        held.replay(records, checkpoint.at, None)?;
        held.debug(link);
        drop(held);
        Ok(Self { vm, printed_before: checkpoint.printed, prints: false })
    }

    pub fn hold(&self) -> Result<Paused<'_>, Error> {
        Ok(self.vm.hold()?)
    }

    /// Has it run.
    pub fn go(&self, orders: Orders) -> Result<(), Error> {
        let mut held = self.hold()?;
        held.order(orders);
        Ok(held.resume(Resume { reason: ResumeReason::Resumed, away: Duration::ZERO })?)
    }

    /// Where it is, once it has stopped. `None`: it has ended.
    pub fn stopped(&self) -> Result<Option<Debugged>, Error> {
        match self.vm.wait_stopped() {
            true => Ok(self.hold()?.debugged()),
            false => Ok(None),
        }
    }
}
