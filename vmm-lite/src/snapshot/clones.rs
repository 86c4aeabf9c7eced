//! Many VMs from one, each in a process of its own, sharing memory until they write to it.
//!
//! A [`Template`] is the VM's memory as a sealed memfd, and beside it who it is and its state. Each clone maps the memory privately: what it does not write to is there
//! once for all of them.

use super::{
    Error,
    guest::Guest,
    start::{self, Change},
};
use crate::{
    control::{Claim, RuntimeDir},
    devices::console::Console,
    memory::PAGE,
    vm::{Resources, ResumeReason, Vm},
};
use nix::{
    fcntl::{FcntlArg, SealFlag, fcntl},
    sys::memfd::{MFdFlags, memfd_create},
};
use std::{ffi::CStr, fs::File, io::Write, os::unix::fs::FileExt};
use vmm_lite_interface::layout::{CONTROL_PAGE, PAGE_SIZE};

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
    pub fn plant(&self, guest: &Guest) -> Result<(), Error> {
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
    /// [`Error::Part`].
    pub fn guest(&self) -> Result<Guest, Error> {
        seed(&self.seed)
    }
}

/// Makes this process a clone, which runs when this returns.
///
/// # Errors
/// [`Error`], and a name or TAP device that is taken.
pub fn start(
    memory: File,
    seed: &Guest,
    change: &Change,
    tap: Option<&str>,
    reason: ResumeReason,
    console: Console,
) -> Result<(Vm, Claim), Box<dyn std::error::Error>> {
    let mut guest = seed.clone();
    let address = start::change(&mut guest, change)?;
    let identity = guest.who.identity.clone();
    let claim = RuntimeDir::open()?.claim(&identity.name)?;
    // What the VMM puts there when it makes the machine is not the guest's.
    let mut control = [0; PAGE];
    memory.read_exact_at(&mut control, CONTROL_PAGE)?;
    let vm = Vm::prepare_with(&Resources::with_tap_later(tap)?, identity, console, Some(memory))?;
    vm.ram().write_page((CONTROL_PAGE / PAGE_SIZE) as usize, &control)?;
    start::run(vm.hold()?, &guest, &address, reason)?;
    vm.announce_when_up();
    Ok((vm, claim))
}

/// The VM without its memory, from a template's second file.
///
/// # Errors
/// [`Error::Part`].
pub fn seed(file: &File) -> Result<Guest, Error> {
    // All clones have the same file, whose position is one: it is left alone.
    let cannot = super::host("read the template");
    let read = || {
        let mut bytes = vec![0; file.metadata()?.len().min(SEED_MAX) as usize];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    };
    Guest::from_bytes(&read().map_err(cannot)?)
}
