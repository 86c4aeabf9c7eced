//! Copies the memory of a VM that runs in rounds: what changed meanwhile is copied again, until
//! that is so little that it is copied while the VM stands.
//!
//! Other than a [copy on write](super::cow) it takes nothing out of KVM's tables: a guest that is
//! copied on write needs thousands of entries made again, which on a KVM without hardware
//! virtualization stops it for milliseconds although it does not stand.

use super::{
    Error,
    copy::{self, Alive, Copied, Mode, QUIESCE},
    sink::{Page, Sink},
};
use crate::{
    host::{
        patient::give_way,
        urgent::{Side, Urgent},
    },
    kvm::DirtyLog,
    memory::{Complete, PageSet},
    vm::Vm,
};
use std::time::Instant;

/// Most rounds.
const ROUNDS: u32 = 8;
/// So few pages are left for the pause: a tenth of a millisecond.
const FEW: usize = 256;

/// Copies `vm`, which runs on. `None`: it writes faster than it is copied, and not `to_the_end`, in
/// which case what is left then is copied all the same while it stands.
pub(super) fn copy(
    vm: &Vm,
    complete: Complete<'_>,
    to_the_end: bool,
    sink: &mut dyn Sink,
    alive: &mut Alive<'_>,
) -> Result<Option<Copied>, Error> {
    give_way();
    vm.dirty_log().start_full().map_err(crate::vm::Error::from)?;
    let copied = (|| {
        let Some(late) = rounds(vm, complete, to_the_end, sink, alive)? else { return Ok(None) };
        vm.stop_is_near(true);
        pause(vm, late, sink).map(Some)
    })();
    vm.stop_is_near(false);
    if let Err(e) = vm.dirty_log().stop() {
        tracing::warn!("{}", crate::host::with_causes(&e));
    }
    copied
}

/// Copies until little is left; returns the pages that did not matter at the beginning, which may
/// at the end.
fn rounds(
    vm: &Vm,
    complete: Complete<'_>,
    to_the_end: bool,
    sink: &mut dyn Sink,
    alive: &mut Alive<'_>,
) -> Result<Option<PageSet>, Error> {
    let log = vm.dirty_log();
    let mut late = copy::touched(complete)?;
    let mut left = late.clone();
    left.take_out(&vm.page_hints());
    late.take_out(&left);
    first(vm, &left, sink, alive)?;
    for _ in 0..ROUNDS {
        // Only looked at: a page that is taken out costs the guest a fault when it writes to it
        // again.
        let dirty = log.peek().map_err(crate::vm::Error::from)?.len();
        if dirty <= FEW {
            return Ok(Some(late));
        }
        if dirty > left.len() / 2 {
            break;
        }
        left = log.take().map_err(crate::vm::Error::from)?;
        copy::write(vm, &left, sink, alive)?;
    }
    Ok(to_the_end.then_some(late))
}

/// The first round: every page is taken out of the log, and those in `pages` are copied.
fn first(
    vm: &Vm,
    pages: &PageSet,
    sink: &mut dyn Sink,
    alive: &mut Alive<'_>,
) -> Result<(), Error> {
    let all = vm.ram().pages();
    for piece in
        (0..all).step_by(DirtyLog::PIECE).map(|first| first..(first + DirtyLog::PIECE).min(all))
    {
        let end = piece.end;
        vm.dirty_log().leave_out(piece.clone()).map_err(crate::vm::Error::from)?;
        let some = contents(vm, piece.filter(|page| pages.contains(*page)))?;
        sink.pages(&some)?;
        // How far it is, not how much was copied.
        if end.is_multiple_of(4096) && !alive(end) {
            return Err(Error::Cancelled);
        }
    }
    Ok(())
}

fn contents(vm: &Vm, pages: impl Iterator<Item = usize>) -> Result<Vec<Page>, Error> {
    pages.map(|page| Ok((page, copy::content(vm.ram(), page)?))).collect()
}

/// Stops the VM, copies what is left and captures its state, and lets it run on.
fn pause(vm: &Vm, late: PageSet, sink: &mut dyn Sink) -> Result<Copied, Error> {
    let urgent = (Urgent::this(Side::Source), vm.urgent_vcpu(Side::Source));
    let mut paused = vm.quiesce(QUIESCE)?;
    // Its thread goes on as soon as this is done.
    vm.prewake();
    let page_hints = paused.page_hints();
    let captured = (|| {
        let mut left = vm.dirty_log().peek().map_err(crate::vm::Error::from)?;
        left.add(&late);
        let left_out = copy::take_out(&mut left, &page_hints);
        let last = contents(vm, left.iter())?;
        let memory = Instant::now();
        Ok::<_, Error>((paused.capture()?, last, left_out, memory))
    })();
    let quiescent = paused.quiescent();
    let (state, last, left_out, memory) = match captured {
        Ok(captured) => captured,
        Err(e) => {
            paused.resume_here()?;
            return Err(e);
        }
    };
    let phases = copy::resume(paused, memory)?;
    drop(urgent);
    sink.pages(&last)?;
    let (mode, phases) = (Mode::Rounds, Some(phases));
    Ok(Copied { state, page_hints, left_out, quiescent, mode, phases, faults: 0 })
}
