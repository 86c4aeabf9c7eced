//! Many VMs from one, each in a process of its own. They share memory until they write to it.
//!
//! A [`Template`] is the VM's memory as a sealed memfd, with its manifest and state. Each clone
//! maps the memory privately: pages that it does not write to exist once for all clones.

use super::{Error, GuestClock, saved_vm::SavedVm, start::Opened};
use crate::{
    devices::console::Console,
    memory::{GuestRam, PAGE},
    vm::{ResumeReason, Vm},
};
use nix::{
    fcntl::{FcntlArg, SealFlag, fcntl},
    sys::memfd::{MFdFlags, memfd_create},
};
use std::{ffi::CStr, fs::File, io::Write, os::unix::fs::FileExt};
use vmm_lite_interface::layout::{CONTROL_PAGE, PAGE_SIZE};

/// The control page's number.
const CONTROL: usize = (CONTROL_PAGE / PAGE_SIZE) as usize;
/// Limit for a VM's size without its memory, in bytes.
const SEED_MAX: u64 = 1 << 20;

/// The source of clones. Child processes inherit its files.
#[derive(Debug)]
pub struct Template {
    memory: File,
    seed: File,
}

impl Template {
    /// An empty template.
    ///
    /// # Errors
    /// When the host provides no memory.
    pub fn new() -> Result<Self, Error> {
        let make = |name: &CStr| {
            let made = memfd_create(name, MFdFlags::MFD_ALLOW_SEALING);
            made.map(File::from).map_err(|e| super::host("get memory for a template")(e.into()))
        };
        Ok(Self { memory: make(c"vmm-lite-template")?, seed: make(c"vmm-lite-seed")? })
    }

    /// The file for the memory, page after page.
    #[must_use]
    pub fn memory(&self) -> &File {
        &self.memory
    }

    /// The file for the rest.
    #[must_use]
    pub fn seed(&self) -> &File {
        &self.seed
    }

    /// Writes the VM's manifest and state.
    ///
    /// # Errors
    /// When there is no space.
    pub fn plant(&self, guest: &SavedVm) -> Result<(), Error> {
        (&self.seed).write_all(&guest.to_bytes()).map_err(Error::Write)
    }

    /// Seals it, so that no process can change it any more.
    ///
    /// # Errors
    /// The host's error.
    pub fn seal(&self) -> Result<(), Error> {
        let all = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW;
        for file in [&self.memory, &self.seed] {
            fcntl(file, FcntlArg::F_ADD_SEALS(all | SealFlag::F_SEAL_SEAL))
                .map_err(|e| super::host("seal the template")(e.into()))?;
        }
        Ok(())
    }

    /// The VM without its memory.
    ///
    /// # Errors
    /// [`Error::Codec`].
    pub fn guest(&self) -> Result<SavedVm, Error> {
        seed(&self.seed)
    }
}

/// A clone's memory: the template's, which it shares until it writes, and the original content of
/// the control page.
#[derive(Debug)]
pub struct Memory {
    ram: GuestRam,
    control: [u8; PAGE],
}

impl Memory {
    /// Maps a template. Call it while this process may open the host's information about its own
    /// memory.
    ///
    /// # Errors
    /// When it cannot be a guest's memory.
    pub fn of(template: File) -> Result<Self, Error> {
        let ram = GuestRam::copy_of(template)?;
        let mut control = [0; PAGE];
        ram.read_page(CONTROL, &mut control)?;
        Ok(Self { ram, control })
    }

    /// Makes this process the clone, which runs when this returns.
    ///
    /// # Errors
    /// The VM's error.
    pub fn start(
        self,
        opened: Opened,
        reason: ResumeReason,
        clock: GuestClock,
        console: Console,
    ) -> Result<Vm, Error> {
        let vm = opened.machine(console, Some(self.ram))?;
        // What the VMM wrote there when it made the VM is not the guest's.
        let memory = vm.unstarted_memory().ok_or(Error::Ran)?;
        memory.write_page(CONTROL, &self.control)?;
        opened.run(&vm, reason, clock)?;
        Ok(vm)
    }
}

/// Reads the VM without its memory, from a template's second file.
///
/// # Errors
/// [`Error::Codec`].
pub fn seed(file: &File) -> Result<SavedVm, Error> {
    // All clones share the file and its position, so the position is not changed.
    let cannot = super::host("read the template");
    let read = || {
        let mut bytes = vec![0; file.metadata()?.len().min(SEED_MAX) as usize];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    };
    SavedVm::from_bytes(&read().map_err(cannot)?)
}
