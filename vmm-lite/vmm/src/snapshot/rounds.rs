//! Copies the memory of a running VM in rounds: pages that changed meanwhile are copied again,
//! until so few are left that they are copied while the VM is stopped.
//!
//! Unlike [copy on write](super::cow) it clears nothing from KVM's tables: after a copy on write a
//! guest needs thousands of entries made again, which on a KVM without hardware virtualization
//! delays it for milliseconds although it is not stopped.

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
    kvm::{DirtyLog, DirtyView},
    memory::{Complete, PageSet},
    vm::Vm,
};
use std::time::Instant;

/// Most rounds.
const ROUNDS: u32 = 8;
/// At most this many pages are left for the pause: a tenth of a millisecond.
const FEW: usize = 256;

/// Copies `vm`, which continues to run. `None`: it writes faster than it is copied, and not
/// `to_the_end`, in which case the pages that are left then are copied while it is stopped.
pub(super) fn copy(
    vm: &Vm,
    complete: Complete<'_>,
    to_the_end: bool,
    sink: &mut dyn Sink,
    alive: &mut Alive<'_>,
) -> Result<Option<Copied>, Error> {
    give_way();
    let log = vm.dirty_log().start_full().map_err(crate::vm::Error::from)?;
    let Some(late) = rounds(vm, &log, complete, to_the_end, sink, alive)? else { return Ok(None) };
    vm.stop_is_near(true);
    let copied = pause(vm, &log, late, sink);
    vm.stop_is_near(false);
    copied.map(Some)
}

/// Copies until little is left; returns the pages that did not matter at the beginning, which may
/// matter at the end.
fn rounds(
    vm: &Vm,
    log: &DirtyView<'_>,
    complete: Complete<'_>,
    to_the_end: bool,
    sink: &mut dyn Sink,
    alive: &mut Alive<'_>,
) -> Result<Option<PageSet>, Error> {
    let mut late = copy::touched(complete)?;
    let mut left = late.clone();
    left.take_out(&vm.page_hints());
    late.take_out(&left);
    first(vm, log, &left, sink, alive)?;
    for _ in 0..ROUNDS {
        // Only a peek: a page that is taken costs the guest a fault when it writes to it again.
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

/// The first round: every page is cleared from the log, and those in `pages` are copied.
fn first(
    vm: &Vm,
    log: &DirtyView<'_>,
    pages: &PageSet,
    sink: &mut dyn Sink,
    alive: &mut Alive<'_>,
) -> Result<(), Error> {
    let all = vm.ram().pages();
    for piece in
        (0..all).step_by(DirtyLog::PIECE).map(|first| first..(first + DirtyLog::PIECE).min(all))
    {
        let end = piece.end;
        log.leave_out(piece.clone()).map_err(crate::vm::Error::from)?;
        let some = contents(vm, piece.filter(|page| pages.contains(*page)))?;
        sink.pages(&some)?;
        // The position, not how much was copied.
        if end.is_multiple_of(4096) && !alive(end) {
            return Err(Error::Cancelled);
        }
    }
    Ok(())
}

fn contents(vm: &Vm, pages: impl Iterator<Item = usize>) -> Result<Vec<Page>, Error> {
    pages.map(|page| Ok((page, copy::content(vm.ram(), page)?))).collect()
}

/// Stops the VM, copies what is left and captures its state, and resumes it.
fn pause(
    vm: &Vm,
    log: &DirtyView<'_>,
    late: PageSet,
    sink: &mut dyn Sink,
) -> Result<Copied, Error> {
    let urgent = (Urgent::this(Side::Source), vm.urgent_vcpu(Side::Source));
    let mut paused = vm.quiesce(QUIESCE)?;
    // Its thread continues as soon as this is done.
    vm.prewake();
    let page_hints = paused.page_hints();
    let captured = (|| {
        let mut left = log.peek().map_err(crate::vm::Error::from)?;
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
