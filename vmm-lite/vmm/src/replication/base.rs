//! A VM as it is at one instant: what a log begins with.
//!
//! Unlike a snapshot for users it has every page that was ever touched, also those whose content
//! does not matter to the guest: a guest that is replayed must find the same there.

use crate::{
    capture,
    memory::PAGE,
    snapshot::{
        self,
        saved_vm::{SavedVm, VmManifest},
        sink::{FileSink, draw_id},
    },
    vm::Paused,
};
use migrate::snapshot::Notes;
use std::{fs::File, path::Path};

/// Writes the VM to a new file at `path`.
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
    let guest = SavedVm { manifest: VmManifest::of(vm), state };
    let clock = guest.state.clock;
    let taken_ns = clock.mono_ns.saturating_add(clock.wall_offset_ns);
    let notes = Notes { taken_ns, ..Notes::default() };
    sink.finish(draw_id()?, &guest, &crate::memory::PageSet::none(vm.ram().pages()), notes)?;
    Ok(())
}
