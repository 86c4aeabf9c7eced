//! Has KVM fill in its tables for the pages that the guest is going to touch, before it runs: those
//! that were sent with content, first those that it wrote recently.

use crate::{
    kvm::{
        Alarm,
        touch::{RUNS, Run},
    },
    memory::{PAGE, PageSet, Tables},
    migration::switch_hint::SwitchHint,
    vm::{Error, Vm},
};
use std::{
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

/// The time limit: the source waits, and the guest still runs there.
const MOST: Duration = Duration::from_millis(6);

/// If the routine takes longer than this for one call's runs, it is broken.
const CUT: Duration = Duration::from_millis(50);

/// Most pages in a run, so that the time is checked at least every few milliseconds.
const RUN: u64 = 64;

/// Which pages were received with content.
#[derive(Debug)]
pub(super) struct ReceivedPages {
    /// In the first round.
    first: PageSet,
    /// Later: pages that the guest writes to.
    later: PageSet,
    rounds: u32,
}

impl ReceivedPages {
    pub fn none(pages: usize) -> Self {
        Self { first: PageSet::none(pages), later: PageSet::none(pages), rounds: 0 }
    }

    pub fn page(&mut self, number: usize) {
        if self.rounds == 0 { &mut self.first } else { &mut self.later }.insert(number);
    }

    pub fn round_ended(&mut self) {
        self.rounds += 1;
    }

    /// Runs of pages that are mapped to their own address for programs.
    fn runs(&self, vm: &Vm, written: &PageSet, tables: &mut Tables) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        let mut first = self.first.clone();
        first.take_out(&self.later);
        let mut cold = first.clone();
        cold.take_out(written);
        first.take_out(&cold);
        for set in [&self.later, &first, &cold] {
            for page in set.iter() {
                let address = (page * PAGE) as u64;
                if !tables.is_itself(vm.ram(), address) {
                    continue;
                }
                match runs.last_mut() {
                    Some((from, count))
                        if *from + *count * PAGE as u64 == address && *count < RUN =>
                    {
                        *count += 1;
                    }
                    _ => runs.push((address, 1)),
                }
            }
        }
        runs
    }
}

/// Warms a VM whose memory is present but for recent changes. Returns the tables that this relied
/// on: KVM does not see changes that are written to the guest's tables from here.
///
/// # Errors
/// [`Error`]: the VM's memory may be damaged then.
pub(super) fn warm(
    vm: &Vm,
    came: &ReceivedPages,
    switch_hint: &SwitchHint,
) -> Result<Option<Tables>, Error> {
    let (began, invariant) = (Instant::now(), &switch_hint.invariant);
    let mut tables = Tables::new(invariant.system.cr3);
    let routine = vm.ram().control_page().touch_pages.load(Relaxed);
    if !tables.is_itself(vm.ram(), routine) {
        // The kernel has no such routine.
        return Ok(None);
    }
    let runs = came.runs(vm, &switch_hint.written(vm.ram().pages()), &mut tables);
    let mut held = vm.hold()?;
    let _cut = Alarm::every(CUT);
    for runs in runs.chunks(RUNS) {
        if began.elapsed() > MOST {
            break;
        }
        let mut some = [(0, 0); RUNS];
        some[..runs.len()].copy_from_slice(runs);
        held.touch(&invariant.system, routine, &some)?;
    }
    Ok(Some(tables))
}
