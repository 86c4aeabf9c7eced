//! Puts a running VM back to a snapshot.
//!
//! The file is loaded into separate memory and checked whole while the VM runs, and its state is
//! tried on a VM of its own. Only then is the VM stopped, and its memory exchanged for the other.
//! If the state is refused even so, the exchange is undone: the VM is unchanged, and continues
//! unless it is paused.

use super::{Error, GuestClock, load, start};
use crate::{
    capture::touched,
    memory::{Complete, GuestRam, PAGE, PageSet, Writable},
    vm::{Address, Paused, Resume, ResumeReason, Vm, VmState},
};
use std::{
    fs::File,
    sync::Arc,
    time::{Duration, Instant},
};

/// How long to wait for the vCPU to enter the guest, before the time of that is left out.
const ENTRY: Duration = Duration::from_secs(1);

/// What it cost, in ns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Report {
    /// How long no instruction of the guest ran, from the request to pause.
    pub pause_ns: u64,
    /// The total time.
    pub total_ns: u64,
    /// Pages that were exchanged.
    pub pages: u64,
}

/// Puts `vm`, whose memory is complete, back to the snapshot in `file`. It keeps its name and its
/// addresses, and continues from there, unless it is paused: then it stays paused.
///
/// # Errors
/// [`Error`]: the VM is unchanged.
pub fn revert(
    vm: &Vm,
    complete: Complete<'_>,
    file: File,
    clock: GuestClock,
) -> Result<Report, Error> {
    let begun = Instant::now();
    let snapshot = load::open(file)?;
    let mut guest = load::guest(&snapshot)?;
    guest.manifest.fits(&vm.features())?;
    let (here, there) = (vm.identity(), &guest.manifest.identity);
    if here.memory_size != there.memory_size {
        return Err(Error::Differs("the size of its memory"));
    }
    if here.nets.len() != there.nets.len() {
        return Err(Error::Differs("how many networks it has"));
    }
    let change = start::Change {
        mac: here.nets.first().map(|net| net.mac),
        // Where it is the same the guest keeps its connections.
        ip: here.nets.first().and_then(|net| net.ip).filter(|_| here.nets != there.nets),
        ..start::Change::default()
    };
    let address = start::change(&mut guest, &change)?;
    let mut other = GuestRam::new(there_size(&guest))?;
    load::memory(&snapshot, other.writable())?;
    let other = Arc::new(other);
    let (mut vcpu, _log, _) = vm.host().create(&other).map_err(crate::vm::Error::from)?;
    for state in &guest.state.vcpus {
        vcpu.apply(state).map_err(crate::vm::Error::from)?;
    }

    let mut paused = vm.pause()?;
    let (requested, _) = paused.times();
    let mut before = match paused.capture() {
        Ok(state) => Before { state, captured: Instant::now(), other, exchanged: None },
        Err(e) => {
            paused.resume_here()?;
            return Err(e.into());
        }
    };
    let away = guest.age();
    let passes = clock.passes(away);
    let pages = match before.replace(&mut paused, complete, &guest.state, passes, &address) {
        Ok(pages) => pages,
        Err(e) => return Err(before.undo(paused, e)),
    };
    if let Err(e) = paused.resume(Resume { reason: ResumeReason::Reverted, away }) {
        return Err(match vm.hold() {
            Ok(paused) => before.undo(paused, e.into()),
            // It has ended meanwhile.
            Err(_) => e.into(),
        });
    }
    let entered = vm.entered(ENTRY).unwrap_or_else(Instant::now);
    Ok(Report {
        pause_ns: entered.saturating_duration_since(requested).as_nanos() as u64,
        total_ns: begun.elapsed().as_nanos() as u64,
        pages: pages as u64,
    })
}

fn there_size(guest: &super::saved_vm::SavedVm) -> u64 {
    guest.manifest.identity.memory_size
}

/// The VM's previous state, to undo the revert.
struct Before {
    state: VmState,
    captured: Instant,
    /// The memory of the snapshot or, after the exchange, what the VM had.
    other: Arc<GuestRam>,
    /// The exchanged pages, once all of them are.
    exchanged: Option<PageSet>,
}

impl Before {
    /// Applies the snapshot to the VM; returns how many pages were exchanged.
    fn replace(
        &mut self,
        paused: &mut Paused<'_>,
        complete: Complete<'_>,
        state: &VmState,
        away: Duration,
        address: &Address,
    ) -> Result<usize, Error> {
        let mut pages = touched(complete)?;
        let there = self.other.complete().expect("it was loaded whole, and nothing is missing");
        pages.add(&touched(there)?);
        let count = exchange(paused.memory(), self.other.writable_while_stopped(), &pages)?;
        self.exchanged = Some(pages);
        fail_point!("revert.exchanged", else return Err(crate::vm::Error::Host { doing: "go \
            on", source: crate::fail_point::injected() }.into()));
        paused.apply(state, away)?;
        if *address != Address::default() {
            paused.readdress(address);
        }
        Ok(count)
    }

    /// Puts the VM back to where it was stopped, because of `why`, and resumes it if it ran.
    fn undo(self, mut paused: Paused<'_>, why: Error) -> Error {
        let vm = paused.vm().clone();
        let back = (|| {
            if let Some(pages) = &self.exchanged {
                exchange(paused.memory(), self.other.writable_while_stopped(), pages)?;
            }
            // Its clock continued.
            Ok::<_, Error>(paused.apply(&self.state, self.captured.elapsed())?)
        })();
        if let Err(e) = back {
            // It is neither in its old state nor in the new one, and must not run.
            tracing::error!("the VM cannot be put back to its old state: {e}");
            vm.fail(e, || {});
            return why;
        }
        match paused.resume_here() {
            Ok(()) => why,
            Err(e) => e.into(),
        }
    }
}

/// Exchanges the content of pages of two memories of the same size; returns how many differed.
/// Doing it again undoes it.
fn exchange(here: Writable<'_>, there: Writable<'_>, pages: &PageSet) -> Result<usize, Error> {
    let mut count = 0;
    let (mut mine, mut theirs) = ([0; PAGE], [0; PAGE]);
    for page in pages.iter() {
        here.read_page(page, &mut mine)?;
        there.read_page(page, &mut theirs)?;
        if mine != theirs {
            there.write_page(page, &mine)?;
            here.write_page(page, &theirs)?;
            count += 1;
            fail_point!("revert.half-exchanged");
        }
    }
    Ok(count)
}
