//! Memory from a snapshot file, checked before the guest runs.

use super::{Error, saved_vm::SavedVm, sink::Input};
use crate::{
    memory::{PAGE, Writable},
    vm::codec::CodecError,
};
use migrate::snapshot::Reader;
use std::{fs::File, os::unix::fs::FileExt};

/// Opens a snapshot. That checks the VM's manifest and state, but not its pages.
///
/// # Errors
/// [`Error::Format`].
pub fn open(file: File) -> Result<Reader<Input>, Error> {
    Ok(Reader::open(Input(file))?)
}

/// The VM in a snapshot that is not a difference.
///
/// # Errors
/// [`Error::Difference`], [`Error::Codec`].
pub fn guest(snapshot: &Reader<Input>) -> Result<SavedVm, Error> {
    if snapshot.header().base.is_some() {
        return Err(Error::Difference);
    }
    let guest = SavedVm::decode(snapshot.identity(), snapshot.state())?;
    if guest.manifest.identity.memory_size != snapshot.header().memory_size {
        return Err(CodecError::Garbled("memory size").into());
    }
    Ok(guest)
}

/// Fills memory that is zero, but for what the VMM itself wrote there. When this returns the whole
/// file was checked.
///
/// # Errors
/// [`Error::Format`]: the memory must not be used then.
pub fn memory(snapshot: &Reader<Input>, ram: Writable<'_>) -> Result<(), Error> {
    snapshot.each(|page, _, content| Ok::<_, Error>(ram.write_page(page as usize, content)?))
}

/// Fills a template for clones, an empty file that grows to the size of the memory. When this
/// returns the whole file was checked.
///
/// # Errors
/// [`Error::Format`], [`Error::Write`].
pub fn template(snapshot: &Reader<Input>, template: &File) -> Result<(), Error> {
    template.set_len(snapshot.header().memory_size).map_err(Error::Write)?;
    snapshot.each(|page, _, content| {
        template.write_all_at(content, page * PAGE as u64).map_err(Error::Write)
    })
}
