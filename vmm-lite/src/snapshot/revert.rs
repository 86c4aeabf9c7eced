//! A VM that runs becomes what it was.
//!
//! The file is loaded beside the VM and checked whole while it runs, and its state is tried on a machine of its own. Only then is the VM stopped, and its memory
//! exchanged for the other. Should the state be refused even so, the exchange is undone: the VM runs on as it was.

use super::{Error, load, start};
use crate::{
    memory::{GuestRam, PAGE, PageSet},
    vm::{Address, Paused, Resume, ResumeReason, Vm, VmPhase},
};
use serde::Serialize;
use std::{
    fs::File,
    sync::Arc,
    time::{Duration, Instant},
};

/// How long the vCPU may take to enter the guest before nothing is said about when it did.
const ENTRY: Duration = Duration::from_secs(1);

/// What it cost, in ns.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Report {
    /// How long no instruction of the guest ran, from the request to pause.
    pub pause_ns: u64,
    /// All of it.
    pub total_ns: u64,
    /// Pages that were exchanged.
    pub pages: u64,
}

/// Puts `vm` back to what it was when the snapshot in `file` was taken. It keeps its name and its addresses, and runs, also if it was paused.
///
/// # Errors
/// [`Error`]: the VM is as it was before.
pub fn revert(vm: &Vm, file: File) -> Result<Report, Error> {
    let begun = Instant::now();
    let snapshot = load::open(file)?;
    let mut guest = load::guest(&snapshot)?;
    guest.who.fits(&vm.features())?;
    let (here, there) = (vm.identity(), &guest.who.identity);
    if here.memory_size != there.memory_size {
        return Err(Error::Differs("the size of its memory"));
    }
    if here.net.is_some() != there.net.is_some() {
        return Err(Error::Differs("whether it has a network"));
    }
    let change = start::Change {
        mac: here.net.as_ref().map(|net| net.mac),
        // Where it is the same the guest need not give up its connections.
        ip: here.net.as_ref().and_then(|net| net.ip).filter(|_| here.net != there.net),
        ..start::Change::default()
    };
    let address = start::change(&mut guest, &change)?;
    let other = Arc::new(GuestRam::new(there_size(&guest))?);
    load::memory(&snapshot, &other)?;
    let (mut vcpu, _log, _) = vm.host().create(&other).map_err(crate::vm::Error::from)?;
    vcpu.apply(&guest.state.vcpu).map_err(crate::vm::Error::from)?;

    let mut paused = match vm.phase() {
        VmPhase::Paused => vm.hold()?,
        _ => vm.pause()?,
    };
    let (requested, _) = paused.times();
    let before = paused.capture()?;
    let exchanged = exchange(vm.ram(), &other);
    let away = guest.age();
    let applied = exchanged
        .as_ref()
        .map_err(|_| ())
        .and_then(|_| paused.apply(&guest.state, away).map_err(|e| tracing::error!("{e}")));
    if applied.is_err() {
        return Err(undo(paused, &other, &before, exchanged));
    }
    let pages = exchanged? as u64;
    if address != Address::default() {
        paused.readdress(&address);
    }
    paused.resume(Resume { reason: ResumeReason::Restored, away })?;
    let entered = vm.entered(ENTRY).unwrap_or_else(Instant::now);
    Ok(Report {
        pause_ns: entered.saturating_duration_since(requested).as_nanos() as u64,
        total_ns: begun.elapsed().as_nanos() as u64,
        pages,
    })
}

fn there_size(guest: &super::guest::Guest) -> u64 {
    guest.who.identity.memory_size
}

/// Exchanges the content of two memories of the same size; how many pages differed. Doing it again undoes it.
fn exchange(here: &GuestRam, there: &GuestRam) -> Result<usize, Error> {
    let touched =
        |ram: &GuestRam| ram.touched().map_err(super::host("find out which memory the guest uses"));
    let mut pages: PageSet = touched(here)?;
    pages.union_with(&touched(there)?);
    let mut count = 0;
    let (mut mine, mut theirs) = ([0; PAGE], [0; PAGE]);
    for page in pages.iter() {
        here.read_page(page, &mut mine)?;
        there.read_page(page, &mut theirs)?;
        if mine != theirs {
            there.write_page(page, &mine)?;
            here.write_page(page, &theirs)?;
            count += 1;
        }
    }
    Ok(count)
}

/// Puts the VM back to where it was stopped, and lets it run on.
fn undo(
    mut paused: Paused<'_>,
    other: &GuestRam,
    before: &crate::vm::VmState,
    exchanged: Result<usize, Error>,
) -> Error {
    let vm = paused.vm().clone();
    let undone = match &exchanged {
        Ok(_) => exchange(vm.ram(), other).map(|_| ()),
        Err(_) => Ok(()),
    };
    let (_, stopped) = paused.times();
    let back = undone.and_then(|()| {
        paused.apply(before, stopped.elapsed())?;
        Ok(paused.resume_here()?)
    });
    match (back, exchanged) {
        (Err(e), _) | (Ok(()), Err(e)) => e,
        (Ok(()), Ok(_)) => Error::Part("state"),
    }
}
