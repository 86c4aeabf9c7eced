//! Many VMs from one, each in a process of its own, sharing memory until they write to it.
//!
//! A [`Template`] is the VM's memory as a sealed memfd, and beside it who it is and its state. Each
//! clone maps the memory privately: what it does not write to is there once for all of them.

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
/// Most bytes of a VM without its memory.
const SEED_MAX: u64 = 1 << 20;

/// What clones are made from. Its files are inherited by the processes that this one starts.
#[derive(Debug)]
pub struct Template {
    memory: File,
    seed: File,
}

impl Template {
    /// An empty one.
    ///
    /// # Errors
    /// When the host has none to give.
    pub fn new() -> Result<Self, Error> {
        let make = |name: &CStr| {
            let made = memfd_create(name, MFdFlags::MFD_ALLOW_SEALING);
            made.map(File::from).map_err(|e| super::host("get memory for a template")(e.into()))
        };
        Ok(Self { memory: make(c"vmm-lite-template")?, seed: make(c"vmm-lite-seed")? })
    }

    /// Where the memory goes, page after page.
    #[must_use]
    pub fn memory(&self) -> &File {
        &self.memory
    }

    /// Where the rest goes.
    #[must_use]
    pub fn seed(&self) -> &File {
        &self.seed
    }

    /// Writes down who the VM is and its state.
    ///
    /// # Errors
    /// When there is no room.
    pub fn plant(&self, guest: &SavedVm) -> Result<(), Error> {
        (&self.seed).write_all(&guest.to_bytes()).map_err(Error::Write)
    }

    /// Makes it so that nobody can change it any more.
    ///
    /// # Errors
    /// What the host says.
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

/// What a clone has for its memory: the template's, which it shares until it writes, and what the
/// control page there holds.
#[derive(Debug)]
pub struct Memory {
    ram: GuestRam,
    control: [u8; PAGE],
}

impl Memory {
    /// Maps a template. To be called while this process may open what the host says of its own
    /// memory.
    ///
    /// # Errors
    /// When it cannot be a guest's.
    pub fn of(template: File) -> Result<Self, Error> {
        let ram = GuestRam::copy_of(template)?;
        let mut control = [0; PAGE];
        ram.read_page(CONTROL, &mut control)?;
        Ok(Self { ram, control })
    }

    /// Makes this process the clone, which runs when this returns.
    ///
    /// # Errors
    /// What the machine says.
    pub fn start(
        self,
        opened: Opened,
        reason: ResumeReason,
        clock: GuestClock,
        console: Console,
    ) -> Result<Vm, Error> {
        let vm = opened.machine(console, Some(self.ram))?;
        // What the VMM has put there when it made the machine is not the guest's.
        vm.ram().write_page(CONTROL, &self.control)?;
        opened.run(&vm, reason, clock)?;
        Ok(vm)
    }
}

/// The VM without its memory, from a template's second file.
///
/// # Errors
/// [`Error::Codec`].
pub fn seed(file: &File) -> Result<SavedVm, Error> {
    // All clones have the same file, whose position is one: it is left alone.
    let cannot = super::host("read the template");
    let read = || {
        let mut bytes = vec![0; file.metadata()?.len().min(SEED_MAX) as usize];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    };
    SavedVm::from_bytes(&read().map_err(cannot)?)
}
