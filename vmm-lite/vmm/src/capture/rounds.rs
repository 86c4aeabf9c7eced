//! Copies the memory of a running VM in rounds: pages that changed meanwhile are copied again,
//! until so few are left that they are copied while the VM is stopped.
//!
//! Unlike [copy on write](super::cow) it clears nothing from KVM's tables: after a copy on write a
//! guest needs thousands of entries made again, which on a KVM without hardware virtualization
//! delays it for milliseconds although it is not stopped.

use super::{
    Error, Page, Sink,
    changes::Changes,
    copy::{self, Alive, Copied, Mode, QUIESCE},
};
use crate::{
    host::{
        patient::give_way,
        urgent::{Side, Urgent},
    },
    memory::{Complete, PageSet},
    vm::{Paused, Vm},
};
use migrate::precopy::{Few, Policy, Rounds, Verdict};
use std::time::{Duration, Instant};

/// What is done at the instant of a copy, while the VM is stopped.
pub type AtInstant<'a> = dyn FnMut(&mut Paused<'_>) -> Result<(), Error> + 'a;

/// The pages left for the pause take a tenth of a millisecond. A guest that writes more than half
/// of what was copied meanwhile is copied on write instead, and that is found out early: the copy
/// is to be of the time when it was asked for.
const POLICY: Policy =
    Policy { few: Few::Pages(256), rounds_max: 8, converging_percent: 50, judge_first: true };

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
    let mut changes = Changes::start(vm, complete)?;
    let rounds = rounds(vm, &mut changes, to_the_end, &|| vm.page_hints(), sink, alive)?;
    let Some(rounds) = rounds else { return Ok(None) };
    vm.stop_is_near(true);
    let copied = pause(vm, &changes, rounds, None, sink);
    vm.stop_is_near(false);
    copied.map(Some)
}

/// Copies `vm`, which continues to run, with every page that was ever touched, whether or not its
/// content matters to the guest. The guest is not asked to quiesce. `at` is called at the instant
/// of the copy.
///
/// # Errors
/// [`Error`], also that of `at`: the VM is unchanged.
pub fn copy_exactly(
    vm: &Vm,
    complete: Complete<'_>,
    sink: &mut dyn Sink,
    alive: &mut Alive<'_>,
    at: &mut AtInstant<'_>,
) -> Result<Copied, Error> {
    give_way();
    let mut changes = Changes::start(vm, complete)?;
    let none = || PageSet::none(vm.ram().pages());
    let rounds = rounds(vm, &mut changes, true, &none, sink, alive)?.expect("to the end");
    vm.stop_is_near(true);
    let copied = pause(vm, &changes, rounds, Some(at), sink);
    vm.stop_is_near(false);
    copied
}

/// Copies until little is left.
fn rounds(
    vm: &Vm,
    changes: &mut Changes<'_>,
    to_the_end: bool,
    page_hints: &dyn Fn() -> PageSet,
    sink: &mut dyn Sink,
    alive: &mut Alive<'_>,
) -> Result<Option<Rounds>, Error> {
    let mut rounds = Rounds::new(changes.touched()?, POLICY);
    let pages = rounds.next(&page_hints());
    first(vm, changes, &pages, sink, alive)?;
    loop {
        rounds.sent();
        // Only a peek: a page that is taken costs the guest a fault when it writes to it again.
        let dirty = changes.peek()?.len();
        match rounds.verdict(dirty, Duration::ZERO) {
            Verdict::Fits => return Ok(Some(rounds)),
            Verdict::Stuck => return Ok(to_the_end.then_some(rounds)),
            Verdict::Another => {}
        }
        rounds.changed(&changes.take()?);
        let pages = rounds.next(&page_hints());
        copy::write(vm, &pages, sink, alive)?;
    }
}

/// The first round.
fn first(
    vm: &Vm,
    changes: &mut Changes<'_>,
    pages: &PageSet,
    sink: &mut dyn Sink,
    alive: &mut Alive<'_>,
) -> Result<(), Error> {
    let mut pages = pages.iter().peekable();
    while let Some(piece) = changes.next_piece()? {
        let some = contents(vm, std::iter::from_fn(|| pages.next_if(|page| *page < piece.end)))?;
        sink.pages(&some).map_err(Error::Sink)?;
        // The position, not how much was copied.
        if piece.end.is_multiple_of(4096) && !alive(piece.end) {
            return Err(Error::Cancelled);
        }
    }
    Ok(())
}

fn contents(vm: &Vm, pages: impl Iterator<Item = usize>) -> Result<Vec<Page>, Error> {
    pages.map(|page| Ok((page, copy::content(vm.ram(), page)?))).collect()
}

/// Stops the VM, copies what is left and captures its state, and resumes it. An exact copy has
/// something `at` that instant.
fn pause(
    vm: &Vm,
    changes: &Changes<'_>,
    mut rounds: Rounds,
    exact: Option<&mut AtInstant<'_>>,
    sink: &mut dyn Sink,
) -> Result<Copied, Error> {
    let urgent = (Urgent::this(Side::Source), vm.urgent_vcpus(Side::Source));
    let mut paused = if exact.is_some() { vm.pause()? } else { vm.quiesce(QUIESCE)? };
    // Its thread continues as soon as this is done.
    vm.prewake();
    let page_hints = match exact {
        Some(_) => PageSet::none(vm.ram().pages()),
        None => paused.page_hints(),
    };
    let captured = (|| {
        if let Some(at) = exact {
            at(&mut paused)?;
        }
        let dirty = changes.peek()?;
        let last = contents(vm, rounds.last(&dirty, &page_hints).iter())?;
        let memory = Instant::now();
        Ok::<_, Error>((paused.capture()?, last, memory))
    })();
    let quiescent = paused.quiescent();
    let (state, last, memory) = match captured {
        Ok(captured) => captured,
        Err(e) => {
            paused.resume_here()?;
            return Err(e);
        }
    };
    let phases = copy::resume(paused, memory)?;
    drop(urgent);
    sink.pages(&last).map_err(Error::Sink)?;
    let (mode, phases, left_out) = (Mode::Rounds, Some(phases), rounds.left().len());
    Ok(Copied { state, page_hints, left_out, quiescent, mode, phases, faults: 0 })
}
