//! Snapshot, fork and revert of a running VM, as operations: one at a time, with an observer, and
//! only once all of the VM's memory is present.

use super::{
    Error, GuestClock, load, revert,
    saved_vm::{SavedVm, VmManifest},
    sink::{FileSink, TemplateSink, draw_id},
};
use crate::{
    capture::{self, Copied, Mode, Phases, Way},
    memory::Complete,
    vm::{CallOff, InProgress, Incomplete, Observer, Operation, Vm, VmPhase, Waiting},
};
use migrate::snapshot::Notes;
use std::{
    fs::File,
    io::Write,
    time::{Duration, Instant},
};

/// Progress of an operation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Progress {
    /// The progress of the copy.
    Pages {
        /// Pages that are done.
        done: usize,
        /// Pages of the VM.
        of: usize,
    },
    /// It has not begun: it waits for missing memory of the VM.
    Waiting {
        /// What it waits for.
        waiting: Waiting,
        /// For how long it has waited.
        since: Duration,
    },
}

/// The client that started a snapshot, a fork or a revert.
pub type CopyObserver<'a> = dyn Observer<Progress> + 'a;

/// The options of a snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Options {
    /// The VM is paused afterwards.
    pub stay_paused: bool,
    /// How a running VM is copied.
    pub way: Way,
    /// How long to wait for missing memory.
    pub timeout: Option<Duration>,
}

/// The copy and its costs, times in ns.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// How it was copied.
    pub mode: Mode,
    /// Whether the guest was ready.
    pub quiescent: bool,
    /// How long no instruction of the guest ran; `None` for a VM that was paused all the time.
    pub pause_ns: Option<u64>,
    /// The pause by phase.
    pub phases: Option<Phases>,
    /// All of it.
    pub total_ns: u64,
    /// How often the guest, or the VMM for it, had to wait for a page to be copied.
    pub faults: u64,
    /// Pages left out as hinted.
    pub pages_dont_care: usize,
    /// Pages written to the copy with their content.
    pub pages_saved: u64,
}

impl Report {
    fn new(copied: &Copied, total: Duration, pages_saved: u64) -> Self {
        Self {
            mode: copied.mode,
            quiescent: copied.quiescent,
            pause_ns: copied.phases.map(|p| p.pause_ns()),
            phases: copied.phases,
            total_ns: total.as_nanos() as u64,
            faults: copied.faults,
            pages_dont_care: copied.left_out,
            pages_saved,
        }
    }
}

/// A finished snapshot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Saved {
    /// The copy and its costs.
    pub report: Report,
    /// Whether the VM ran before.
    pub ran: bool,
    /// The file's id, in hexadecimal.
    pub id: String,
    /// Whether it is a difference to another file.
    pub difference: bool,
    /// Size of the file, in bytes.
    pub bytes: u64,
    /// Pages that are zero.
    pub pages_zero: u64,
    /// Pages that are as in the base.
    pub pages_same: u64,
    /// Whether the VM is paused now.
    pub paused: bool,
}

/// Reports the copy's progress; it ends when the observer disconnects or cancels.
fn progress<'a, 'o>(
    vm: &Vm,
    observer: &'a mut CopyObserver<'o>,
) -> impl FnMut(usize) -> bool + use<'a, 'o> {
    let (of, call_off) = (vm.ram().pages(), CallOff::of(vm, observer.fd()));
    move |done| {
        let wanted = call_off.check().is_ok_and(|called_off| called_off.is_none());
        wanted && observer.progress(Progress::Pages { done, of }).is_ok()
    }
}

fn note_cancelled<T>(operation: &InProgress, done: Result<T, Error>) -> Result<T, Error> {
    if let Err(
        Error::Copy(capture::Error::Cancelled) | Error::Incomplete(Incomplete::Cancelled(_)),
    ) = done
    {
        operation.cancelled();
    }
    done
}

/// Waits for missing memory; see [`Vm::wait_complete`].
fn complete<'vm>(
    vm: &'vm Vm,
    timeout: Option<Duration>,
    begun: Instant,
    observer: &mut CopyObserver<'_>,
) -> Result<Complete<'vm>, Error> {
    let within = timeout.map(|timeout| (begun, timeout));
    let call_off = CallOff::of(vm, observer.fd()).within(within);
    let mut tell = |waiting: &Waiting| {
        let (waiting, since) = (waiting.clone(), begun.elapsed());
        observer.progress(Progress::Waiting { waiting, since }).is_ok()
    };
    vm.wait_complete(call_off, &mut tell).map_err(|e| match e {
        Incomplete::Ended(end) => crate::vm::Error::Ended(end).into(),
        e => e.into(),
    })
}

/// Takes a snapshot of `vm` into `file`; with `base`, the difference to that.
///
/// # Errors
/// [`Error`]: the VM is unchanged.
pub fn snapshot(
    vm: &Vm,
    file: File,
    base: Option<File>,
    options: Options,
    observer: &mut CopyObserver<'_>,
) -> Result<Saved, Error> {
    let begun = Instant::now();
    let Options { stay_paused: stay, way, timeout } = options;
    let base = base.map(load::open).transpose()?;
    let difference = base.is_some();
    let manifest = VmManifest::of(vm);
    let copying = vm.begin(Operation::Snapshot)?;
    let complete = note_cancelled(&copying, complete(vm, timeout, begun, observer))?;
    let ran = matches!(vm.phase(), VmPhase::Running);
    let mut sink = FileSink::new(file, vm.ram().pages(), base)?;
    let copied = capture::copy(vm, complete, stay, way, &mut sink, &mut progress(vm, observer));
    let copied = note_cancelled(&copying, copied.map_err(Error::from))?;
    let guest = SavedVm { manifest, state: copied.state.clone() };
    let clock = guest.state.clock;
    let notes = Notes {
        taken_ns: clock.mono_ns.saturating_add(clock.wall_offset_ns),
        pages_dont_care: copied.left_out as u64,
        quiescent: copied.quiescent,
        ..Notes::default()
    };
    let finished = sink.finish(draw_id()?, &guest, &copied.page_hints, notes);
    let (header, counts) = match finished {
        Ok(finished) => finished,
        Err(e) => {
            capture::undo_stay(vm, stay)?;
            return Err(e);
        }
    };
    Ok(Saved {
        report: Report::new(&copied, begun.elapsed(), counts.saved),
        ran,
        id: hex(&header.id),
        difference,
        bytes: header.file_size,
        pages_zero: counts.zero,
        pages_same: counts.same,
        paused: matches!(vm.phase(), VmPhase::Paused),
    })
}

/// Copies `vm` into a template: `memory` gets its memory, `seed` its manifest and state.
///
/// # Errors
/// [`Error`]: the VM is unchanged.
pub fn fork(
    vm: &Vm,
    memory: File,
    mut seed: File,
    timeout: Option<Duration>,
    observer: &mut CopyObserver<'_>,
) -> Result<Report, Error> {
    let begun = Instant::now();
    let manifest = VmManifest::of(vm);
    let copying = vm.begin(Operation::Fork)?;
    let complete = note_cancelled(&copying, complete(vm, timeout, begun, observer))?;
    let mut sink = TemplateSink::new(memory, vm.ram().pages())?;
    let mut alive = progress(vm, observer);
    let copied = capture::copy(vm, complete, false, Way::Auto, &mut sink, &mut alive);
    let copied = note_cancelled(&copying, copied.map_err(Error::from))?;
    if !copied.quiescent && !manifest.identity.nets.is_empty() {
        // It may be sending a packet, and its clones would send that in the name of the original.
        return Err(Error::NotReady);
    }
    let guest = SavedVm { manifest, state: copied.state.clone() };
    seed.write_all(&guest.to_bytes()).map_err(Error::Write)?;
    Ok(Report::new(&copied, begun.elapsed(), sink.saved))
}

/// Reverts `vm` to the snapshot in `file`.
///
/// # Errors
/// [`Error`]: the VM is unchanged.
pub fn put_back(
    vm: &Vm,
    file: File,
    clock: GuestClock,
    timeout: Option<Duration>,
    observer: &mut CopyObserver<'_>,
) -> Result<revert::Report, Error> {
    let begun = Instant::now();
    let reverting = vm.begin(Operation::Revert)?;
    if vm.is_recorded() {
        return Err(Error::Recorded);
    }
    let complete = note_cancelled(&reverting, complete(vm, timeout, begun, observer))?;
    revert::revert(vm, complete, file, clock)
}

/// As people write it.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
