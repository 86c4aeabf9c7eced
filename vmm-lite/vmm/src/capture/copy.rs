//! Copies a VM as it is at one instant.
//!
//! A running VM is copied in [rounds], as in a move, and is stopped while the last pages are
//! copied. One that writes faster than that is [copied on write](super::cow), where the host lets
//! this process serve page faults. A VM that is paused, or stays paused afterwards, is copied
//! directly.

use super::{Error, Page, Sink, cow, host, rounds};
use crate::{
    memory::{Complete, GuestRam, PAGE, PageSet, Userfault, UserfaultError},
    vm::{self, Paused, Vm, VmPhase, VmState},
};
use std::time::{Duration, Instant};

/// How long the guest may take to quiesce.
pub(super) const QUIESCE: Duration = Duration::from_millis(50);
/// How long to wait for the vCPU to enter the guest, before the time of that is left out.
const ENTRY: Duration = Duration::from_secs(1);

/// How a VM was copied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// It continued at once; pages were copied while it ran, those first that it wrote to.
    CopyOnWrite,
    /// In rounds while it ran, and the last pages while it was stopped.
    Rounds,
    /// It was stopped all the time.
    Paused,
}

/// How to copy a running VM.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Way {
    /// In rounds, or on write if the guest writes faster than that
    #[default]
    Auto,
    /// In rounds while it runs, and what is left then while it is stopped, however much
    Rounds,
    /// Pages are copied when the guest tries to write to them, and the others in the background
    CopyOnWrite,
}

/// The blackout by phase, in ns (rule R7). The phases add up to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Phases {
    /// From the request to pause until the vCPU was stopped.
    pub quiesce_ns: u64,
    /// Until no memory could change any more without being noticed.
    pub memory_ns: u64,
    /// Until the state was captured.
    pub state_ns: u64,
    /// Until the guest's next instruction.
    pub resume_ns: u64,
}

impl Phases {
    /// Their sum.
    #[must_use]
    pub fn pause_ns(&self) -> u64 {
        self.quiesce_ns + self.memory_ns + self.state_ns + self.resume_ns
    }
}

/// A finished copy.
#[derive(Clone, Debug)]
pub struct Copied {
    /// Everything but the memory.
    pub state: VmState,
    /// Pages that were not copied because they do not matter.
    pub page_hints: PageSet,
    /// Of these, how many would have been copied.
    pub left_out: usize,
    /// Whether the guest reported that it was ready.
    pub quiescent: bool,
    /// How.
    pub mode: Mode,
    /// The pause; `None` for a VM that was paused before and stays paused.
    pub phases: Option<Phases>,
    /// How often the guest, or the VMM for it, had to wait for a page to be copied.
    pub faults: u64,
}

/// Reports the progress of a copy, in pages; `false` ends it.
pub type Alive<'a> = dyn FnMut(usize) -> bool + 'a;

/// Copies `vm`, whose memory is complete. With `stay` it is paused afterwards; otherwise it
/// continues if it ran, and is copied that `way`.
///
/// # Errors
/// [`Error`]: the VM is unchanged.
pub fn copy(
    vm: &Vm,
    complete: Complete<'_>,
    stay: bool,
    way: Way,
    sink: &mut dyn Sink,
    alive: &mut Alive<'_>,
) -> Result<Copied, Error> {
    if let VmPhase::Running = vm.phase() {
        vm.request_reclaim();
        // Without an answer more pages are copied.
        let _ = vm.wait_reclaimed(QUIESCE);
    }
    fail_point!("copy.begun");
    if !alive(0) {
        return Err(Error::Cancelled);
    }
    match vm.phase() {
        VmPhase::Ended(end) => Err(vm::Error::Ended(end).into()),
        VmPhase::Running if !stay => running(vm, complete, way, sink, alive),
        VmPhase::Running | VmPhase::Paused => {
            let paused = vm.quiesce(QUIESCE)?;
            if stay {
                paused.keep(true);
            }
            let copied = standing(paused, complete, sink, alive);
            if copied.is_err() {
                undo_stay(vm, stay)?;
            }
            copied
        }
    }
}

/// A failed copy does not keep the VM paused; the operator's own pause still holds.
pub(crate) fn undo_stay(vm: &Vm, stay: bool) -> Result<(), Error> {
    if stay {
        let paused = vm.pause()?;
        paused.keep(false);
        paused.resume_here()?;
    }
    Ok(())
}

/// Copies a VM that continues to run.
fn running(
    vm: &Vm,
    complete: Complete<'_>,
    way: Way,
    sink: &mut dyn Sink,
    alive: &mut Alive<'_>,
) -> Result<Copied, Error> {
    // Most often not needed in the end; but if it is, the guest is too fast to wait until it is
    // opened.
    let userfault = match Userfault::open(vm.ram()) {
        Err(e) if way == Way::CopyOnWrite => return Err(e.into()),
        Err(e @ (UserfaultError::Forbidden(_) | UserfaultError::Lacks(_))) => {
            tracing::info!("no copy on write: {e}");
            None
        }
        opened => Some(opened?),
    };
    let to_the_end = way == Way::Rounds || userfault.is_none();
    if way != Way::CopyOnWrite
        && let Some(copied) = rounds::copy(vm, complete, to_the_end, sink, alive)?
    {
        return Ok(copied);
    }
    let userfault = userfault.expect("rounds go to the end without it");
    cow::copy(vm, complete, userfault, sink, alive)
}

/// Copies a stopped VM.
fn standing(
    mut paused: Paused<'_>,
    complete: Complete<'_>,
    sink: &mut dyn Sink,
    alive: &mut Alive<'_>,
) -> Result<Copied, Error> {
    let state = paused.capture()?;
    let page_hints = paused.page_hints();
    let mut pages = touched(complete)?;
    let left_out = take_out(&mut pages, &page_hints);
    write(paused.vm(), &pages, sink, alive)?;
    let quiescent = paused.quiescent();
    // It was resumed meanwhile, or stays paused.
    paused.resume_here()?;
    Ok(Copied {
        state,
        page_hints,
        left_out,
        quiescent,
        mode: Mode::Paused,
        phases: None,
        faults: 0,
    })
}

/// Resumes a VM whose memory was safe at `memory` and whose state has just been captured.
pub(super) fn resume(paused: Paused<'_>, memory: Instant) -> Result<Phases, Error> {
    let captured = Instant::now();
    let (requested, stopped) = paused.times();
    let vm = paused.vm().clone();
    paused.resume_here()?;
    let entered = vm.entered(ENTRY).unwrap_or_else(Instant::now);
    let ns = |from: Instant, to: Instant| to.saturating_duration_since(from).as_nanos() as u64;
    Ok(Phases {
        quiesce_ns: ns(requested, stopped),
        memory_ns: ns(stopped, memory),
        state_ns: ns(memory, captured),
        resume_ns: ns(captured, entered),
    })
}

pub(crate) fn touched(memory: Complete<'_>) -> Result<PageSet, Error> {
    memory.touched().map_err(host("find out which memory the guest uses"))
}

/// Removes pages that do not matter from a set; returns how many those were.
pub(super) fn take_out(pages: &mut PageSet, page_hints: &PageSet) -> usize {
    let before = pages.len();
    pages.take_out(page_hints);
    before - pages.len()
}

/// Writes pages with their current content.
pub(super) fn write(
    vm: &Vm,
    pages: &PageSet,
    sink: &mut dyn Sink,
    alive: &mut Alive<'_>,
) -> Result<(), Error> {
    const RUN: usize = 64;
    let mut some: Vec<Page> = Vec::with_capacity(RUN);
    for (n, page) in pages.iter().enumerate() {
        some.push((page, content(vm.ram(), page)?));
        if some.len() == RUN {
            sink.pages(&some).map_err(Error::Sink)?;
            some.clear();
            if n % 4096 < RUN && !alive(n) {
                return Err(Error::Cancelled);
            }
        }
    }
    sink.pages(&some).map_err(Error::Sink)
}

pub(super) fn content(ram: &GuestRam, page: usize) -> Result<[u8; PAGE], Error> {
    let mut content = [0; PAGE];
    ram.read_page(page, &mut content)?;
    Ok(content)
}
