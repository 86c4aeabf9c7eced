//! Copies a VM as it is at one instant.
//!
//! A VM that runs is [copied on write](super::cow) where the host lets this process serve page faults; elsewhere in rounds, as a move does it, with the last
//! pages copied while the VM stands. One that is paused, or is to stay so, is simply copied.

use super::{
    Error, cow,
    sink::{Page, Sink},
};
use crate::{
    memory::{PAGE, PageSet, Userfault, UserfaultError},
    vm::{Paused, Side, Urgent, Vm, VmPhase, VmState},
};
use serde::Serialize;
use std::time::{Duration, Instant};

/// How long the guest may take to quiesce.
pub const QUIESCE: Duration = Duration::from_millis(50);
/// How long the vCPU may take to enter the guest before nothing is said about when it did.
const ENTRY: Duration = Duration::from_secs(1);
/// Most rounds of a copy in rounds.
const ROUNDS: u32 = 8;
/// So few pages are left for the pause without another round.
const FEW: usize = 32;

/// How a VM was copied.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// It ran on at once; pages were copied behind its back, those first that it wrote to.
    CopyOnWrite,
    /// In rounds, because the host does not let this process serve page faults.
    Rounds,
    /// It stood all the time.
    Paused,
}

/// The pause, by phase, in ns (rule R7). They add up to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Phases {
    /// From the request to pause until the vCPU stood.
    pub quiesce_ns: u64,
    /// Until the memory could not change any more without being noticed.
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

/// A copy that was made.
#[derive(Clone, Debug)]
pub struct Copied {
    /// Everything but the memory.
    pub state: VmState,
    /// Pages that did not come because they do not matter.
    pub dont_care: PageSet,
    /// Of these, how many would have come.
    pub left_out: usize,
    /// Whether the guest said that it was ready.
    pub quiescent: bool,
    /// How.
    pub mode: Mode,
    /// The pause; `None` for a VM that stood before and stands still.
    pub phases: Option<Phases>,
    /// How often the guest, or the VMM for it, had to wait for a page to be copied.
    pub faults: u64,
}

/// Says how far a copy is, in pages; `false` ends it.
pub type Alive<'a> = dyn FnMut(usize) -> bool + 'a;

/// Copies `vm`. With `stay` it is paused afterwards; otherwise it runs on if it ran.
///
/// # Errors
/// [`Error`]: the VM is as it was before.
pub fn copy(
    vm: &Vm,
    stay: bool,
    sink: &mut dyn Sink,
    alive: &mut Alive<'_>,
) -> Result<Copied, Error> {
    if let VmPhase::Running = vm.phase() {
        vm.ask_to_give_up();
        vm.wait_gave_up(QUIESCE);
    }
    match vm.phase() {
        VmPhase::Ended(end) => Err(crate::vm::Error::Ended(end).into()),
        VmPhase::Paused => standing(vm.hold()?, sink, alive),
        VmPhase::Running if stay => {
            let paused = vm.quiesce(QUIESCE)?;
            let copied = standing(paused, sink, alive);
            if copied.is_err() {
                vm.hold()?.resume_here()?;
            }
            copied
        }
        VmPhase::Running => match Userfault::open(vm.ram()) {
            Ok(userfault) => cow::copy(vm, userfault, sink, alive),
            Err(e @ (UserfaultError::Forbidden(_) | UserfaultError::Lacks(_))) => {
                tracing::info!("copying in rounds: {e}");
                in_rounds(vm, sink, alive)
            }
            Err(e) => Err(e.into()),
        },
    }
}

/// Copies a VM that stands.
fn standing(
    mut paused: Paused<'_>,
    sink: &mut dyn Sink,
    alive: &mut Alive<'_>,
) -> Result<Copied, Error> {
    let state = paused.capture()?;
    let dont_care = paused.dont_care();
    let mut pages = touched(paused.vm())?;
    let left_out = take_out(&mut pages, &dont_care);
    write(paused.vm(), &pages, sink, alive)?;
    let quiescent = paused.quiescent();
    Ok(Copied {
        state,
        dont_care,
        left_out,
        quiescent,
        mode: Mode::Paused,
        phases: None,
        faults: 0,
    })
}

/// Copies a VM that runs, with the dirty log: in rounds until little is left, and that while it stands.
///
/// # Errors
/// [`Error`]: the VM runs on.
pub fn in_rounds(vm: &Vm, sink: &mut dyn Sink, alive: &mut Alive<'_>) -> Result<Copied, Error> {
    let log = vm.dirty_log();
    log.start().map_err(crate::vm::Error::from)?;
    let copied = rounds(vm, sink, alive);
    if let Err(e) = log.stop() {
        tracing::warn!("{}", crate::cli::with_causes(&e));
    }
    copied
}

fn rounds(vm: &Vm, sink: &mut dyn Sink, alive: &mut Alive<'_>) -> Result<Copied, Error> {
    let mut left = touched(vm)?;
    for _ in 0..ROUNDS {
        let before = left.len();
        write(vm, &left, sink, alive)?;
        left = vm.dirty_log().take().map_err(crate::vm::Error::from)?;
        if left.len() <= FEW || left.len() > before / 2 {
            break;
        }
    }
    let urgent = (Urgent::this(Side::Source), vm.urgent_vcpu(Side::Source));
    let mut paused = vm.quiesce(QUIESCE)?;
    let dont_care = paused.dont_care();
    let mut last = Vec::new();
    let copied = (|| {
        left.union_with(&vm.dirty_log().peek().map_err(crate::vm::Error::from)?);
        let left_out = take_out(&mut left, &dont_care);
        for page in left.iter() {
            let mut content = [0; PAGE];
            vm.ram().read_page(page, &mut content)?;
            last.push((page, content));
        }
        let memory = Instant::now();
        Ok::<_, Error>((paused.capture()?, left_out, memory))
    })();
    let quiescent = paused.quiescent();
    let (state, left_out, memory) = match copied {
        Ok(copied) => copied,
        Err(e) => {
            paused.resume_here()?;
            return Err(e);
        }
    };
    let phases = resume(paused, memory)?;
    drop(urgent);
    sink.pages(&last)?;
    let mode = Mode::Rounds;
    Ok(Copied { state, dont_care, left_out, quiescent, mode, phases: Some(phases), faults: 0 })
}

/// Lets a VM run on whose memory was safe at `memory` and whose state has just been captured.
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

pub(super) fn touched(vm: &Vm) -> Result<PageSet, Error> {
    vm.ram().touched().map_err(super::host("find out which memory the guest uses"))
}

/// Takes what does not matter out of a set; how many that were.
pub(super) fn take_out(pages: &mut PageSet, dont_care: &PageSet) -> usize {
    let before = pages.len();
    pages.subtract(dont_care);
    before - pages.len()
}

/// Writes pages as they are now.
fn write(
    vm: &Vm,
    pages: &PageSet,
    sink: &mut dyn Sink,
    alive: &mut Alive<'_>,
) -> Result<(), Error> {
    const RUN: usize = 64;
    let mut some: Vec<Page> = Vec::with_capacity(RUN);
    for (n, page) in pages.iter().enumerate() {
        let mut content = [0; PAGE];
        vm.ram().read_page(page, &mut content)?;
        some.push((page, content));
        if some.len() == RUN {
            sink.pages(&some)?;
            some.clear();
            if n % 4096 < RUN && !alive(n) {
                return Err(Error::Cancelled);
            }
        }
    }
    sink.pages(&some)
}
