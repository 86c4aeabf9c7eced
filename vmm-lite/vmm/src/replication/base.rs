//! A VM as it is at one instant: what a log begins with.
//!
//! Unlike a snapshot for users it has every page that was ever touched, also those whose content
//! does not matter to the guest: a guest that is replayed must find the same there.

use crate::{
    capture::{self, copy_exactly},
    memory::{PAGE, PageSet},
    snapshot::{
        self,
        saved_vm::{SavedVm, VmManifest},
        sink::{FileSink, draw_id},
    },
    vm::{Operation, Paused, Position, Vm, VmState},
};
use migrate::snapshot::Notes;
use std::{fs::File, path::Path};

/// Writes a VM that does not run to a new file at `path`.
///
/// # Errors
/// [`snapshot::Error`]; the VM is unchanged.
pub fn write(paused: &mut Paused<'_>, path: &Path) -> Result<(), snapshot::Error> {
    let file = File::create_new(path).map_err(snapshot::Error::Write)?;
    let state = paused.capture()?;
    let vm = paused.vm();
    let complete = vm.ram().complete().ok_or(snapshot::Error::NotReady)?;
    let pages = capture::touched(complete)?;
    let mut sink = FileSink::new(file, vm.ram().pages(), None)?;
    let mut content = [0; PAGE];
    for page in pages.iter() {
        vm.ram().read_page(page, &mut content)?;
        sink.page(page, &content)?;
    }
    finish(sink, vm, state)
}

/// Writes a VM that runs, and is recorded or replayed, to a new file at `path`. Returns where in
/// its log it was then. `wanted` ends it.
///
/// # Errors
/// [`snapshot::Error`]; the VM is unchanged.
pub fn write_running(
    vm: &Vm,
    path: &Path,
    wanted: &mut dyn FnMut() -> bool,
) -> Result<Position, snapshot::Error> {
    let _copying = vm.begin(Operation::Snapshot)?;
    let complete = vm.ram().complete().ok_or(snapshot::Error::NotReady)?;
    let file = File::create_new(path).map_err(snapshot::Error::Write)?;
    let mut sink = FileSink::new(file, vm.ram().pages(), None)?;
    let mut position = None;
    let copied = copy_exactly(vm, complete, &mut sink, &mut |_| wanted(), &mut |paused| {
        position = paused.position()?;
        Ok(())
    })?;
    finish(sink, vm, copied.state)?;
    position.ok_or(snapshot::Error::NotReady)
}

fn finish(sink: FileSink, vm: &Vm, state: VmState) -> Result<(), snapshot::Error> {
    let guest = SavedVm { manifest: VmManifest::of(vm), state };
    let clock = guest.state.clock;
    let taken_ns = clock.mono_ns.saturating_add(clock.wall_offset_ns);
    let notes = Notes { taken_ns, ..Notes::default() };
    sink.finish(draw_id()?, &guest, &PageSet::none(vm.ram().pages()), notes)?;
    Ok(())
}
