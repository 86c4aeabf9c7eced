//! Copies of VMs at one instant, in every way of copying; VMs that are reverted, or cannot be; and
//! snapshot files made by older versions.

mod clocks;
mod golden;
mod own_clock;
mod reverts;
mod ways;

use migrate::snapshot::{MAJOR, Notes};
use std::{
    fs::File,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use testkit::counting::{TIMEOUT, counted, counts_on, vm};
use testkit::guest::kvm;
use vmm::{
    capture::{self, Copied, Mode, Sink},
    devices::console::Console,
    kvm::Host,
    memory::{Complete, GuestRam, PAGE, Supply, Userfault},
    snapshot::{
        Error, GuestClock, load, revert,
        saved_vm::{SavedVm, VmManifest},
        sink::FileSink,
        start,
    },
    vm::{Address, CallOff, End, Incomplete, Resume, ResumeReason, Slow, Vm, VmPhase, VmState},
};
use vmm_lite_interface::{INTERFACE_VERSION, control::ControlPage};

type Way = fn(&Vm, &mut dyn Sink) -> Result<Copied, capture::Error>;

/// A snapshot of `vm` in a file without a name.
fn snapshot(vm: &Vm, base: Option<File>, way: Way) -> (File, Copied) {
    let file = tempfile::tempfile().unwrap();
    let base = base.map(|base| load::open(base).unwrap());
    let mut sink = FileSink::new(file.try_clone().unwrap(), vm.ram().pages(), base).unwrap();
    let copied = way(vm, &mut sink).unwrap();
    let guest = SavedVm { manifest: VmManifest::of(vm), state: copied.state.clone() };
    let notes = Notes { taken_ns: 1, pages_dont_care: 2, ..Notes::default() };
    sink.finish([7; 16], &guest, &copied.page_hints, notes).unwrap();
    (file, copied)
}

/// A snapshot of `vm` with a changed state.
fn with_state(vm: &Vm, change: impl FnOnce(&mut VmState)) -> File {
    let (file, copied) = snapshot(vm, None, ON_WRITE);
    let reader = load::open(file).unwrap();
    let mut guest = SavedVm { manifest: VmManifest::of(vm), state: copied.state };
    change(&mut guest.state);
    let changed = tempfile::tempfile().unwrap();
    let mut sink = FileSink::new(changed.try_clone().unwrap(), vm.ram().pages(), None).unwrap();
    reader.each(|page, _, content| sink.page(page as usize, content)).unwrap();
    sink.finish([8; 16], &guest, &copied.page_hints, Notes::default()).unwrap();
    changed
}

/// Runs a snapshot to the end of its VM.
fn run(file: File) -> i32 {
    let snapshot = load::open(file).unwrap();
    let mut guest = load::guest(&snapshot).unwrap();
    let address = start::change(&mut guest, &start::Change::default()).unwrap();
    let vm = Vm::prepare(guest.manifest.identity.clone(), None, Console::new(None)).unwrap();
    load::memory(&snapshot, vm.unstarted_memory().unwrap()).unwrap();
    let (held, clock) = (vm.hold().unwrap(), GuestClock::Continue);
    start::run(held, &guest, &address, ResumeReason::Restored, clock).unwrap();
    match &*vm.wait_end() {
        End::Exited(code) => *code,
        other => panic!("{other}"),
    }
}

/// Asserts that all of its memory is here.
fn whole(vm: &Vm) -> Complete<'_> {
    vm.ram().complete().unwrap()
}

const AS_IT_GOES: Way =
    |vm, sink| capture::copy(vm, whole(vm), false, capture::Way::Auto, sink, &mut |_| true);
const ROUNDS: Way =
    |vm, sink| capture::copy(vm, whole(vm), false, capture::Way::Rounds, sink, &mut |_| true);
const ON_WRITE: Way = |vm, sink| match Userfault::open(vm.ram()) {
    Ok(_) => capture::copy(vm, whole(vm), false, capture::Way::CopyOnWrite, sink, &mut |_| true),
    // If the host forbids it, the test of page faults reports that.
    Err(_) => ROUNDS(vm, sink),
};
