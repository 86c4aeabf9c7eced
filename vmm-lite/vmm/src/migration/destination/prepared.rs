//! A VM that is ready for an arriving guest.

use super::{
    Offering,
    error::Error,
    made::Made,
    missing::Missing,
    names::Reserved,
    settling::Settling,
    waiting::{Lost, say_which},
    warm::{ReceivedPages, warm},
};
use crate::{
    devices::{console::Console, state::DeviceState},
    host::urgent::{Side, Urgent},
    memory::{PAGE, Tables, Writable},
    migration::{handover::Handover, offered::Offered, switch_hint::SwitchHint},
    vm::{self, MoveOutcome, Resume, ResumeReason, Vm, VmPhase},
};
use migrate::{
    brownout::Settled,
    offer::{Offer, Refusal},
    page_set::PageSet,
    wire::{Accepted, Message, PageFrame, Run, Started},
};
use std::{
    cell::RefCell,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

/// How long to wait for the vCPU to enter the guest, before the time of that is left out of the
/// report.
const ENTRY: Duration = Duration::from_secs(1);

/// See the module.
pub(super) struct Prepared {
    pub vm: Vm,
    /// Its name here.
    pub name: Reserved,
    /// The priority of the move's thread, until the source knows that the VM runs.
    urgent: Option<Urgent>,
    /// The priority of the vCPU thread, until it has entered the guest.
    urgent_vcpus: Option<Vec<Urgent>>,
    /// The watch for post-copy pages; `None` where the host does not support that, and when all
    /// have arrived.
    pub missing: Option<Missing>,
    /// The received pages.
    received_pages: RefCell<ReceivedPages>,
    /// The guest's tables from which KVM's were filled, or why that failed.
    tables: Result<Option<Tables>, vm::Error>,
    /// When the state arrived, and when it was applied.
    came: Instant,
    applied: Instant,
    /// Will measure the guest's speed, until the guest runs.
    settling: Option<Settling>,
}

impl Prepared {
    /// Judges an offer and makes a VM for it.
    pub fn new(
        offer: &Offer,
        offering: &Offering,
        source: String,
    ) -> Result<(Self, Accepted), Refusal> {
        let cannot = |e: &dyn std::error::Error| Refusal::Prepare(crate::host::with_causes(e));
        let offered = Offered::from_bytes(&offer.identity)
            .map_err(|e| Refusal::Prepare(format!("{e}: run the same vmm-lite on both hosts")))?;
        let identity = &offered.identity;
        if identity.memory_size != offer.memory_size || identity.nets.is_empty() == offer.network {
            return Err(Refusal::Prepare("the offer contradicts itself".into()));
        }
        let output = offering.output.as_ref().map(OwnedFd::try_clone).transpose();
        let console = Console::new(output.map_err(|e| cannot(&e))?);
        let Made { vm, name, apply } = Made::new(offer, offered, offering, console)?;
        let missing = Missing::able(vm.ram(), source)
            .inspect_err(|e| tracing::info!("no post-copy: {}", crate::host::with_causes(e)))
            .ok();
        let accepted = Accepted { follow: missing.is_some(), apply_ns: apply.as_nanos() as u64 };
        fail_point!("destination.prepared",
            else return Err(Refusal::Prepare(crate::fail_point::injected().to_string())));
        let now = Instant::now();
        let (urgent, urgent_vcpus) = (None, None);
        let pages = vm.ram().pages();
        let settling = Settling::of(&vm, offering.fault_cost);
        let this = Self {
            vm,
            name,
            urgent,
            urgent_vcpus,
            missing,
            settling,
            received_pages: RefCell::new(ReceivedPages::none(pages)),
            tables: Ok(None),
            came: now,
            applied: now,
        };
        Ok((this, accepted))
    }

    fn watched(&self) -> Option<&Missing> {
        self.missing.as_ref().filter(|missing| missing.watching())
    }

    fn unstarted(&self) -> Result<Writable<'_>, Error> {
        self.vm.unstarted_memory().ok_or(Error::Ran)
    }

    /// Receives pages before the guest runs.
    pub fn write(&self, frame: &PageFrame<'_>) -> Result<(), Error> {
        let memory = self.unstarted()?;
        {
            let mut came = self.received_pages.borrow_mut();
            frame.iter().for_each(|(number, _)| came.page(number));
        }
        match self.watched() {
            Some(missing) => {
                frame.iter().try_for_each(|(number, page)| missing.write(memory, number, page))
            }
            None => frame
                .runs()
                .try_for_each(|(first, pages)| memory.write_pages(first, pages))
                .map_err(Error::from),
        }?;
        fail_point!("destination.in-round",
            else return Err(Error::Injected(crate::fail_point::injected())));
        Ok(())
    }

    /// Makes pages zero before the guest runs.
    pub fn clear(&self, runs: &[Run]) -> Result<(), Error> {
        let memory = self.unstarted()?;
        for &(first, count) in runs {
            // The decoder has checked that the run lies inside the memory.
            let (first, count) = (first as usize, count as usize);
            match self.watched() {
                Some(missing) => missing.clear(memory, first, count)?,
                None => (first..first + count).try_for_each(|number| memory.zero_page(number))?,
            }
        }
        Ok(())
    }

    /// Receives pages while the guest runs: only those that are missing.
    pub fn fill<'a>(
        &self,
        pages: impl Iterator<Item = (usize, &'a [u8; PAGE])>,
        lacking: &PageSet,
    ) -> Result<(), Error> {
        let Some(missing) = self.watched() else { return Ok(()) };
        for (number, page) in pages.filter(|(number, _)| lacking.contains(*number)) {
            missing.put(number, page)?;
        }
        fail_point!("destination.filling",
            else return Err(Error::Injected(crate::fail_point::injected())));
        Ok(())
    }

    /// Makes pages zero while the guest runs: only those that are missing.
    pub fn fill_zero(&self, runs: &[Run], lacking: &PageSet) -> Result<(), Error> {
        let Some(missing) = self.watched() else { return Ok(()) };
        for number in runs.iter().flat_map(|&(first, count)| first..first + count) {
            if lacking.contains(number as usize) {
                missing.zero(number as usize, 1)?;
            }
        }
        Ok(())
    }

    /// The state is about to arrive, and this is the part that is known already.
    pub fn switch_hint(&mut self, switch_hint: &[u8]) {
        // This takes a while, and must not delay others.
        if let Some(switch_hint) = SwitchHint::from_bytes(switch_hint) {
            self.get_warm(&switch_hint);
        }
        self.hurry();
    }

    fn get_warm(&mut self, switch_hint: &SwitchHint) {
        let applied =
            self.vm.hold().and_then(|mut held| held.apply_invariant(&switch_hint.invariant));
        if let Err(e) = applied {
            // The state may differ, which is judged when it arrives.
            tracing::debug!("{}", crate::host::with_causes(&e));
        }
        self.tables = warm(&self.vm, &self.received_pages.borrow(), switch_hint);
        self.settling = self.settling.take().and_then(|settling| settling.again(&self.vm));
    }

    fn hurry(&mut self) {
        // The priority of an urgent thread is not set again.
        self.urgent.get_or_insert_with(|| Urgent::this(Side::Destination));
        self.urgent_vcpus.get_or_insert_with(|| self.vm.urgent_vcpus(Side::Destination));
    }

    /// A message was sent to the source. If the source is in a hurry, the state is its next
    /// message; the hurry ends when it knows that the VM runs.
    pub fn said(&mut self, message: &Message) {
        match message {
            Message::RoundDone(_) => self.received_pages.get_mut().round_ended(),
            Message::Running(_) => {
                self.urgent = None;
                self.missing.take_if(|missing| !missing.watching());
            }
            _ => {}
        }
    }

    /// Applies a state that arrived at `came`.
    pub fn apply(&mut self, state: &[u8], came: Instant, lacking: &PageSet) -> Result<(), Error> {
        self.hurry();
        // Again, if the source took long to stop the guest.
        self.vm.prewake();
        // Applied once: what happened in the warming is of no use later.
        let tables = std::mem::replace(&mut self.tables, Ok(None)).map_err(Error::Warm)?;
        match &tables {
            // This thread will read these pages, and it is the one that would receive them.
            Some(tables) if tables.pages().any(|page| lacking.contains(page)) => {
                return Err(Error::NoTables);
            }
            Some(tables) if !tables.unchanged(self.vm.ram()) => return Err(Error::TablesChanged),
            Some(_) | None => {}
        }
        let Handover { state, paused, vouched_for } = Handover::from_bytes(state)?;
        if let Some(missing) = self.watched() {
            // This thread will read these pages, and it is the one that would receive them.
            let pages = state.devices.iter().flat_map(DeviceState::pages_in_use);
            for page in pages.filter(|page| *page < self.vm.ram().pages()) {
                if lacking.contains(page) {
                    return Err(Error::NoQueues);
                }
                missing.zero(page, 1)?;
            }
        }
        // The guest's clock continued from the capture: that long before the state arrived, as far
        // as this host can know.
        let mut held = self.vm.hold()?;
        held.apply(&state, came.elapsed())?;
        if paused {
            held.hold_for_operator()?;
        }
        if vouched_for {
            self.vm.note_vouched_for();
        }
        (self.came, self.applied) = (came, Instant::now());
        fail_point!("destination.applied");
        Ok(())
    }

    /// All memory has arrived: no access waits.
    pub fn nothing_is_missing(&mut self) {
        // Once it watches nothing, its teardown can wait until the source knows that the guest
        // runs: it takes as long as much of the other work here.
        if let Some(missing) = self.missing.take_if(|missing| missing.watching()) {
            missing.complete();
        }
    }

    /// This many pages are still missing, of a running guest.
    pub fn lacks(&self, pages: usize) {
        if let Some(arriving) = self.missing.as_ref().and_then(Missing::arriving) {
            arriving.left(pages);
        }
    }

    /// The source is unreachable, for this reason, or has reconnected (`None`).
    pub fn source_is_away(&self, why: Option<&str>) {
        if let Some(arriving) = self.missing.as_ref().and_then(Missing::arriving) {
            why.map_or_else(|| arriving.back(), |why| arriving.away(why));
        }
    }

    /// Lets the guest run: the commit arrived at `came`, maybe with the state. The source requested
    /// the pause after it had received the message sent at `before`. Returns when the guest began
    /// to run, too.
    pub fn start(&mut self, came: Instant, before: Instant) -> (Started, Instant) {
        let away = self.came.elapsed();
        let resumed = self
            .vm
            .hold()
            .and_then(|held| held.resume(Resume { reason: ResumeReason::Migrated, away }));
        if let Err(e) = resumed {
            // The source may not run it and this host cannot: the operator must know that.
            eprintln!("vmm-lite: the VM arrived and cannot run: {}", crate::host::with_causes(&e));
        }
        let entered = self.vm.entered(ENTRY);
        self.urgent_vcpus = None;
        fail_point!("destination.running");
        if let Err(e) = self.vm.announce() {
            tracing::warn!("the VM was not announced to the network: {e}");
        }
        let entered = entered.unwrap_or_else(Instant::now);
        self.settling = self.settling.take().map(|settling| settling.begin(entered));
        let runs = matches!(self.vm.phase(), VmPhase::Running);
        let blackout = runs.then(|| entered.saturating_duration_since(before));
        if !runs {
            self.settling = None;
        }
        self.vm.note_move(MoveOutcome::Arrived { blackout });
        let ns = |from: Instant, to: Instant| to.saturating_duration_since(from).as_nanos() as u64;
        let started = Started {
            apply_ns: ns(self.came, self.applied),
            run_ns: ns(came.max(self.applied), entered),
            // The brownout is known then.
            told_ns: 0,
        };
        (started, entered)
    }

    /// When to measure the guest's speed next; `None` if that is not possible.
    pub fn look_due(&self) -> Option<Instant> {
        self.settling.as_ref().map(Settling::due)
    }

    /// Measures a running guest, which has waited this long for missing pages. Returns its brownout
    /// once, or that this cannot be measured.
    pub fn look(&mut self, waited: Duration) -> Option<Settled> {
        let settled = match &mut self.settling {
            Some(settling) => settling.look(&self.vm, waited)?,
            None => Settled::UNKNOWN,
        };
        self.settling = None;
        self.vm.note_brownout(settled.brownout);
        // Again: frames get lost.
        if let Err(e) = self.vm.announce() {
            tracing::debug!("the VM was not announced to the network again: {e}");
        }
        Some(settled)
    }

    /// The pages did not arrive: the VM ends because it lacks them.
    pub fn lost(&mut self, lacking: &PageSet) {
        say_which(lacking);
        let error = Lost { pages: lacking.len() };
        // First the guest must not run on, then the waiting threads are released.
        self.vm.fail(error, || drop(self.missing.take()));
    }
}
