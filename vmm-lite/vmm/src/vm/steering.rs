//! How threads steer the vCPU's thread, and how they learn what it does.
//!
//! A thread that wants the vCPU stopped counts itself among [`Shared::pauses`] (or `quiesces`), then nudges (ends
//! a wait) or kicks (ends the guest). The vCPU's thread announces that it is about to wait or to enter before it
//! looks at the counts for the last time, so that one of the two sees the other. Counts are taken back by the
//! thread that added them and by no other: a resume in between cannot lose a pause.

use super::{End, Error, Machine, Operation, operation::Operations, shared::Shared};
use crate::{devices::clock, host::watchdog};
use std::{
    os::fd::AsRawFd,
    sync::{
        Arc, MutexGuard, PoisonError,
        atomic::{
            AtomicU32,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::{Duration, Instant},
};
use vmm_lite_interface::layout::{CONTROL_PAGE, PAGE_SIZE};

/// For so long a thread waits for another without sleep where blackout depends on it: to be woken takes tens of
/// microseconds. Not for much longer: a thread of real-time priority that does so keeps the host's network, whose
/// work is done by ordinary threads, from its CPU.
const AWAKE: Duration = Duration::from_micros(250);
/// How long a request may wait before it says for what.
const SLOW: Duration = Duration::from_millis(500);
/// How long a vCPU that is to end may take to leave the guest before what may hold it up is let go. It takes tens of
/// microseconds unless it waits for just that.
const LET_GO: Duration = Duration::from_millis(100);

/// What the vCPU thread does.
#[derive(Clone, Debug)]
pub(super) enum Phase {
    Running,
    Paused {
        /// The guest itself said that it is quiescent.
        quiescent: bool,
        /// When it stopped.
        since: Instant,
    },
    Ended(Arc<End>),
}

/// Whether the VM is about to run elsewhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Leaving {
    #[default]
    No,
    /// Its state is captured: whether it goes on here is open.
    Open,
    /// The commit is sent.
    Committed,
}

/// What is decided about a VM, under one lock.
#[derive(Debug)]
pub(super) struct Control {
    pub phase: Phase,
    /// The operator wants it paused: an operation that ends does not resume it.
    held: bool,
    /// An operation keeps it paused beyond its end.
    kept: bool,
    /// A [`Paused`](super::Paused) guard holds the machine.
    guarded: bool,
    leaving: Leaving,
    /// The host that it was handed to answers.
    answers: bool,
    /// Where it moves or has moved.
    destination: Option<String>,
    /// Why it is to end, where the host lets it down.
    failure: Option<Arc<End>>,
    pub operations: Operations,
}

impl Control {
    pub fn new(phase: Phase) -> Self {
        Self {
            phase,
            held: false,
            kept: false,
            guarded: false,
            leaving: Leaving::No,
            answers: false,
            destination: None,
            failure: None,
            operations: Operations::default(),
        }
    }

    /// Whether the commit of a move was sent.
    pub fn committed(&self) -> bool {
        self.leaving == Leaving::Committed
    }

    fn ended(&self) -> Result<(), Error> {
        match &self.phase {
            Phase::Ended(end) => Err(Error::Ended(Arc::clone(end))),
            _ => Ok(()),
        }
    }

    fn busy(&self) -> Error {
        Error::Busy(self.operations.what())
    }

    fn handed_over(&self) -> Error {
        Error::HandedOver(self.destination.clone().unwrap_or_else(|| "another host".into()))
    }
}

/// A wish that counts until this is dropped.
pub(super) struct Wish<'s>(&'s AtomicU32);

impl Drop for Wish<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

/// What waiting for the vCPU to stop came to.
pub(super) enum Waited<'s> {
    /// It is stopped, and this thread has the machine.
    Machine(MutexGuard<'s, Machine>),
    /// It is stopped, and another thread holds the machine.
    Guarded,
    /// It still runs, and the deadline is over.
    Runs,
}

impl<'s> Waited<'s> {
    /// The machine, if this thread has it.
    pub fn machine(self) -> Option<MutexGuard<'s, Machine>> {
        match self {
            Self::Machine(machine) => Some(machine),
            Self::Guarded | Self::Runs => None,
        }
    }
}

/// A wait of an operator's request: says what it waits for where that takes longer than it should.
pub struct Slow<'a> {
    since: Instant,
    said: bool,
    say: &'a mut dyn FnMut(&str),
}

impl<'a> Slow<'a> {
    /// A wait that begins now; `say` is called once, after [`SLOW`].
    pub fn new(say: &'a mut dyn FnMut(&str)) -> Self {
        Self { since: Instant::now(), said: false, say }
    }

    fn left(&self) -> Option<Duration> {
        (!self.said).then(|| SLOW.saturating_sub(self.since.elapsed()))
    }

    fn is_over(&self) -> bool {
        !self.said && self.since.elapsed() >= SLOW
    }

    fn say(&mut self, what: &str) {
        self.said = true;
        (self.say)(what);
    }
}

impl std::fmt::Debug for Slow<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slow").field("since", &self.since).finish_non_exhaustive()
    }
}

/// What to do where another thread holds the machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum OtherGuard {
    /// Wait until it does not. For an operation: there is one at a time, and what else holds it does so for a moment.
    Wait,
    /// Say so.
    Report,
}

/// Waits without sleep until `so`, or for so long that a sleep is worth it.
fn awake_until(so: impl Fn() -> bool) {
    let end = Instant::now() + AWAKE;
    while !so() && Instant::now() < end {
        std::thread::yield_now();
    }
}

impl Shared {
    pub(super) fn lock_control(&self) -> MutexGuard<'_, Control> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn phase(&self) -> Phase {
        self.lock_control().phase.clone()
    }

    // What others ask of the vCPU thread.

    /// Wants the vCPU stopped as soon as possible.
    pub(super) fn want_pause(&self) -> Wish<'_> {
        self.pauses.fetch_add(1, SeqCst);
        self.stir();
        Wish(&self.pauses)
    }

    /// Wants the vCPU stopped when the guest says that it is quiescent.
    pub(super) fn want_quiesce(&self) -> Wish<'_> {
        self.quiesces.fetch_add(1, SeqCst);
        self.nudge();
        Wish(&self.quiesces)
    }

    /// Has the vCPU thread look at what is wanted, wherever it is.
    fn stir(&self) {
        self.nudge();
        self.kick.kick();
    }

    /// Ends a wait of the vCPU thread, so that it looks at what there is.
    pub(super) fn nudge(&self) {
        if self.waiting.load(SeqCst) {
            // The counter cannot overflow in practice, and if it is full the thread wakes all the same.
            let _ = self.wake.write(1);
        }
    }

    /// Writes a new quiesce request where the guest finds it.
    pub(super) fn request_quiesce(&self, patience: Duration) {
        let control = self.ram.control_page();
        let answered = control.quiesce_answer.load(SeqCst);
        // A number that differs from every earlier request and from the last answer.
        let mut number = self.quiesce_number.load(SeqCst).wrapping_add(1);
        if number == answered {
            number = number.wrapping_add(1);
        }
        self.quiesce_number.store(number, SeqCst);
        let hz = control.clock.tsc_hz.load(SeqCst);
        let ticks = u128::from(hz) * patience.as_nanos() / 1_000_000_000;
        let deadline = clock::tsc().saturating_add(u64::try_from(ticks).unwrap_or(u64::MAX));
        control.quiesce_deadline_tsc.store(deadline, SeqCst);
        control.quiesce_request.store(number, SeqCst);
        self.ram.mark(CONTROL_PAGE, PAGE_SIZE as usize);
    }

    /// Asks the guest to give up memory that it does not use.
    pub(super) fn ask_to_give_up(&self) {
        let control = self.ram.control_page();
        let number = control.give_up_answer.load(SeqCst).wrapping_add(1);
        control.give_up_request.store(number, SeqCst);
        self.ram.mark(CONTROL_PAGE, PAGE_SIZE as usize);
        self.look.store(true, SeqCst);
        self.nudge();
    }

    /// Waits until the guest has answered [`ask_to_give_up`](Self::ask_to_give_up), does not run,
    /// or `deadline`. If it has answered: the number of the quiesce request before.
    pub(super) fn wait_gave_up(&self, deadline: Instant) -> Option<u32> {
        let page = self.ram.control_page();
        let number = self.quiesce_number();
        let answered = || page.give_up_answer.load(SeqCst) == page.give_up_request.load(SeqCst);
        let mut control = self.lock_control();
        while matches!(control.phase, Phase::Running) && !answered() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            control = self.wait_changed(control, Some(left));
        }
        answered().then_some(number)
    }

    fn wait_changed<'s>(
        &'s self,
        control: MutexGuard<'s, Control>,
        timeout: Option<Duration>,
    ) -> MutexGuard<'s, Control> {
        // For a thread that is watched itself.
        watchdog::waits(|| match timeout {
            None => self.changed.wait(control).unwrap_or_else(PoisonError::into_inner),
            Some(timeout) => {
                let waited = self.changed.wait_timeout(control, timeout);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
        })
    }

    /// Waits for something that takes a moment as a rule, and says so where it takes longer.
    pub(super) fn wait_slowly<'s>(
        &'s self,
        control: MutexGuard<'s, Control>,
        slow: &mut Slow<'_>,
        what: &str,
    ) -> MutexGuard<'s, Control> {
        let control = self.wait_changed(control, slow.left());
        if !slow.is_over() {
            return control;
        }
        // It may take as long as its reader likes.
        drop(control);
        slow.say(what);
        self.lock_control()
    }

    /// Number of the last quiesce request.
    pub(super) fn quiesce_number(&self) -> u32 {
        self.quiesce_number.load(SeqCst)
    }

    pub(super) fn set_quiesce_number(&self, number: u32) {
        self.quiesce_number.store(number, SeqCst);
    }

    /// Takes hold of a machine whose guest waits, or has yet to run. `None`: it does something else.
    pub(super) fn take_waiting(&self) -> Option<MutexGuard<'_, Machine>> {
        // The vCPU thread holds it whenever it runs the guest or does something on its behalf.
        let machine = self.try_lock_machine()?;
        let mut control = self.lock_control();
        if !matches!(control.phase, Phase::Running) {
            return None;
        }
        control.phase = Phase::Paused { quiescent: false, since: Instant::now() };
        control.guarded = true;
        self.running.store(false, SeqCst);
        self.changed.notify_all();
        Some(machine)
    }

    /// Waits until the vCPU is stopped, or `deadline`, and takes hold of the machine unless another thread has.
    pub(super) fn wait_stopped(
        &self,
        deadline: Option<Instant>,
        other: OtherGuard,
    ) -> Result<Waited<'_>, Error> {
        awake_until(|| !self.running.load(SeqCst));
        let mut control = self.lock_control();
        loop {
            control.ended()?;
            match control.phase {
                Phase::Paused { .. } if control.guarded && other == OtherGuard::Report => {
                    return Ok(Waited::Guarded);
                }
                Phase::Paused { .. } if control.guarded => {}
                Phase::Paused { .. } => {
                    drop(control);
                    if let Some(machine) = self.take_paused() {
                        return Ok(Waited::Machine(machine));
                    }
                    control = self.lock_control();
                    continue;
                }
                _ => {}
            }
            let left = match deadline.map(|at| at.saturating_duration_since(Instant::now())) {
                Some(Duration::ZERO) => return Ok(Waited::Runs),
                left => left,
            };
            control = self.wait_changed(control, left);
        }
    }

    /// Takes hold of a machine that is paused and that no other thread holds.
    fn take_paused(&self) -> Option<MutexGuard<'_, Machine>> {
        loop {
            let mut control = self.lock_control();
            if control.guarded || !matches!(control.phase, Phase::Paused { .. }) {
                return None;
            }
            // Against the order of locks, and so never waited for.
            if let Some(machine) = self.try_lock_machine() {
                control.guarded = true;
                return Some(machine);
            }
            // The vCPU's thread has it for a moment, to look whether it is to run.
            drop(control);
            std::thread::yield_now();
        }
    }

    /// Takes hold of a machine that is paused already.
    pub(super) fn take_hold(&self) -> Result<MutexGuard<'_, Machine>, Error> {
        loop {
            {
                let control = self.lock_control();
                control.ended()?;
                if control.guarded || matches!(control.phase, Phase::Running) {
                    return Err(control.busy());
                }
            }
            if let Some(machine) = self.take_paused() {
                return Ok(machine);
            }
        }
    }

    /// Another thread holds the machine.
    pub(super) fn busy(&self) -> Error {
        self.lock_control().busy()
    }

    /// The guard of a machine that was held is dropped.
    pub(super) fn let_go(&self) {
        self.lock_control().guarded = false;
        self.changed.notify_all();
    }

    /// The operator wants it paused, or does not any more. Returns whether that was so already.
    ///
    /// # Errors
    /// [`Error::Ended`]; [`Error::HandedOver`] after the commit of a move.
    pub(super) fn hold(&self, held: bool) -> Result<bool, Error> {
        let mut control = self.lock_control();
        control.ended()?;
        if control.committed() {
            return Err(control.handed_over());
        }
        let before = control.held || control.kept;
        control.held = held;
        control.kept &= held;
        Ok(before)
    }

    /// Whether it stays paused when it is resumed.
    pub(super) fn stays_paused(&self) -> bool {
        let control = self.lock_control();
        control.held || control.kept
    }

    /// An operation keeps it paused beyond its end, or does not after all.
    pub(super) fn keep(&self, kept: bool) {
        self.lock_control().kept = kept;
    }

    /// It moves there.
    pub(super) fn set_destination(&self, to: String) {
        self.lock_control().destination = Some(to);
    }

    /// The operation in progress, and where it was handed to, if the commit of a move was sent.
    pub(super) fn doing(&self) -> (Option<Operation>, Option<String>) {
        let control = self.lock_control();
        (control.operations.what(), control.destination.clone().filter(|_| control.committed()))
    }

    /// Whether it may end here without a loss.
    ///
    /// # Errors
    /// [`Error::HandedOver`]: the destination may need what only this process has.
    pub(super) fn may_end(&self) -> Result<(), Error> {
        let control = self.lock_control();
        if control.committed() && control.ended().is_ok() {
            Err(control.handed_over())
        } else {
            Ok(())
        }
    }

    /// Whether an operator's word that it runs nowhere else was acted on. Waits for that.
    ///
    /// # Errors
    /// [`Error::Answers`], [`Error::Ended`].
    pub(super) fn wait_vouched(&self, slow: &mut Slow<'_>) -> Result<(), Error> {
        let mut control = self.lock_control();
        control.answers = false;
        // A counter that is full is readable too.
        let _ = self.vouched.write(1);
        while control.committed() {
            control.ended()?;
            if control.answers {
                return Err(Error::Answers);
            }
            control = self.wait_slowly(control, slow, "the other host, which is asked once more");
        }
        Ok(())
    }

    /// The other host answers: it is to say what becomes of the VM.
    pub(super) fn refuse_vouching(&self) {
        let _ = self.vouched.read();
        self.lock_control().answers = true;
        self.changed.notify_all();
    }

    /// The state is captured for a move: from now on whether it is to be paused cannot change until it is known
    /// where the VM goes on. Returns whether it is to be paused there.
    pub(super) fn leave(&self) -> bool {
        let mut control = self.lock_control();
        control.leaving = Leaving::Open;
        control.held
    }

    /// The VM may go on here, or never again but on the destination's word.
    pub(super) fn fenced(&self, fenced: bool) {
        self.lock_control().leaving = if fenced { Leaving::Committed } else { Leaving::No };
        self.changed.notify_all();
    }

    /// Waits while another thread holds the machine in a way that leaves it open where the VM goes on. Returns
    /// whether it is still held, by an operation that leaves it here.
    ///
    /// # Errors
    /// [`Error::Ended`]; [`Error::HandedOver`]: it goes on elsewhere.
    pub(super) fn wait_decided(&self, slow: &mut Slow<'_>) -> Result<bool, Error> {
        let mut control = self.lock_control();
        loop {
            control.ended()?;
            match control.leaving {
                Leaving::Committed => return Err(control.handed_over()),
                Leaving::No => return Ok(control.guarded),
                Leaving::Open => {
                    control =
                        self.wait_slowly(control, slow, "the move to decide where it goes on");
                }
            }
        }
    }

    /// Ends the machine, whatever it does.
    pub(super) fn stop(&self, end: End) {
        self.end_soon();
        let mut control = self.lock_control();
        while matches!(control.phase, Phase::Running) {
            control = self.wait_changed(control, None);
        }
        if matches!(control.phase, Phase::Ended(_)) {
            return;
        }
        control.phase = Phase::Ended(Arc::new(end));
        drop(control);
        self.tell_end();
    }

    /// The vCPU is to stop, and does not run again.
    fn end_soon(&self) {
        self.stopping.store(true, SeqCst);
        self.stir();
    }

    /// Ends the machine because the host lets it down. What the guest does or waits for then has no part in how
    /// it ended. `let_go` ends what may hold up the vCPU's thread.
    pub(super) fn fail(&self, why: Arc<End>, let_go: impl FnOnce()) {
        {
            let mut control = self.lock_control();
            if !matches!(control.phase, Phase::Ended(_)) {
                control.failure = Some(Arc::clone(&why));
            }
        }
        self.end_soon();
        // Most often it is out of the guest before anything is let go. Where it waits for what `let_go` ends, a
        // signal is pending, with which KVM enters no guest.
        let deadline = Instant::now() + LET_GO;
        let mut control = self.lock_control();
        while matches!(control.phase, Phase::Running) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            control = self.wait_changed(control, Some(left));
        }
        drop(control);
        let_go();
        let mut control = self.lock_control();
        while matches!(control.phase, Phase::Running) {
            control = self.wait_changed(control, None);
        }
        if matches!(control.phase, Phase::Paused { .. }) {
            control.phase = Phase::Ended(why);
            drop(control);
            self.tell_end();
        }
    }

    /// Tells all threads that may wait that the phase is `Ended`.
    fn tell_end(&self) {
        self.console.close();
        self.nudge();
        // Cannot overflow: a machine ends once.
        let _ = self.ended.write(1);
        self.changed.notify_all();
    }

    /// Readable once the machine has ended.
    pub(super) fn end_fd(&self) -> i32 {
        self.ended.as_raw_fd()
    }

    pub(super) fn wait_end(&self) -> Arc<End> {
        let mut control = self.lock_control();
        loop {
            if let Phase::Ended(end) = &control.phase {
                return Arc::clone(end);
            }
            control = self.wait_changed(control, None);
        }
    }

    pub(super) fn wait_entered(&self, patience: Duration) -> Option<Instant> {
        let deadline = Instant::now() + patience;
        awake_until(|| self.entered.load(SeqCst) != 0);
        let mut control = self.lock_control();
        loop {
            self.entry_awaited.store(true, SeqCst);
            match self.entered.load(SeqCst) {
                0 => {}
                n => return Some(self.made + Duration::from_nanos(n - 1)),
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || !matches!(control.phase, Phase::Running) {
                return None;
            }
            control = self.wait_changed(control, Some(left));
        }
    }

    /// The vCPU thread takes the machine to run it; `None` if it is not to run.
    pub(super) fn lock_running(&self) -> Option<MutexGuard<'_, Machine>> {
        let machine = self.lock_machine();
        // Only who holds it makes it run, or takes it from where it waits.
        matches!(self.lock_control().phase, Phase::Running).then_some(machine)
    }

    /// Lets the vCPU thread run, unless the operator wants the VM paused: then `false`. The caller holds the
    /// machine and gives it up right after.
    pub(super) fn run(&self) -> Result<bool, Error> {
        let mut control = self.lock_control();
        // It is about to end, and not to run before that; how it ends is known in a moment.
        while self.stopping.load(SeqCst) && matches!(control.phase, Phase::Paused { .. }) {
            control = self.wait_changed(control, None);
        }
        control.ended()?;
        if matches!(control.phase, Phase::Running) {
            return Err(control.busy());
        }
        self.entered.store(0, SeqCst);
        if control.held || control.kept {
            return Ok(false);
        }
        control.guarded = false;
        self.resumes.fetch_add(1, Relaxed);
        control.phase = Phase::Running;
        self.running.store(true, SeqCst);
        // It is awake, or is going to be; not once more when it stops.
        self.roused.store(false, SeqCst);
        drop(control);
        self.changed.notify_all();
        // The thread of a machine that was taken while its guest waited may still wait for the same.
        self.nudge();
        Ok(true)
    }

    /// Makes a paused machine one that has ended.
    pub(super) fn end_paused(&self, end: End) -> Result<(), Error> {
        let mut control = self.lock_control();
        control.ended()?;
        if matches!(control.phase, Phase::Running) {
            return Err(control.busy());
        }
        control.phase = Phase::Ended(Arc::new(end));
        drop(control);
        self.tell_end();
        Ok(())
    }

    // The vCPU thread's own side.

    /// Parks the vCPU thread until it is to run (`true`) or the machine has ended (`false`).
    pub(super) fn park(&self) -> bool {
        let mut control = self.lock_control();
        loop {
            match &control.phase {
                Phase::Running => return true,
                Phase::Ended(_) => return false,
                Phase::Paused { .. } => {}
            }
            if self.roused.swap(false, SeqCst) {
                drop(control);
                // A machine that is given up instead is to be gone at once, with its TAP.
                awake_until(|| self.running.load(SeqCst) || self.stopping.load(SeqCst));
                control = self.lock_control();
                continue;
            }
            control = self.wait_changed(control, None);
        }
    }

    /// Says that [`run`](Self::run) is about to be called.
    pub(super) fn rouse(&self) {
        // Through the lock, so that the thread is either asleep or has yet to look.
        let control = self.lock_control();
        self.roused.store(true, SeqCst);
        drop(control);
        self.changed.notify_all();
    }

    /// Says that the vCPU is stopped, and gives the machine up: in one, so that no thread finds a machine that is
    /// free and takes it for one that waits.
    pub(super) fn stopped(&self, machine: MutexGuard<'_, Machine>, phase: Phase) {
        let ended = matches!(phase, Phase::Ended(_));
        {
            let mut control = self.lock_control();
            control.phase = match (&phase, control.failure.take()) {
                (Phase::Ended(_), Some(why)) => Phase::Ended(why),
                _ => phase,
            };
            drop(machine);
        }
        self.running.store(false, SeqCst);
        if ended {
            self.tell_end();
        } else {
            self.changed.notify_all();
        }
    }

    pub(super) fn stop_is_near(&self) -> bool {
        self.stop_near.load(SeqCst)
    }

    pub(super) fn pause_wanted(&self) -> bool {
        self.pauses.load(SeqCst) > 0 || self.stopping.load(SeqCst)
    }

    pub(super) fn quiesce_wanted(&self) -> bool {
        self.quiesces.load(SeqCst) > 0
    }

    /// Says that the guest has answered something.
    pub(super) fn answered(&self) {
        // Once through the lock, so that who waits is either asleep or has yet to look.
        drop(self.lock_control());
        self.changed.notify_all();
    }

    /// Whether the guest is to run for a moment; it is asked once.
    pub(super) fn look_wanted(&self) -> bool {
        self.look.swap(false, SeqCst)
    }

    /// Announces that the vCPU thread is about to wait (or no longer does).
    pub(super) fn set_waiting(&self, waiting: bool) {
        self.waiting.store(waiting, SeqCst);
    }

    /// Whether it does.
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting.load(SeqCst)
    }

    /// The descriptor that [`nudge`](Self::nudge) makes readable.
    pub(super) fn wake_fd(&self) -> i32 {
        self.wake.as_raw_fd()
    }

    /// Makes it unreadable again.
    pub(super) fn clear_wake(&self) {
        let _ = self.wake.read();
    }

    /// Notes the first entry after a resume. A thread that waits for it already is woken right here, which takes
    /// the guest a microsecond or two; one that comes later finds the note.
    pub(super) fn note_entry(&self) {
        let ns = self.made.elapsed().as_nanos() as u64;
        self.entered.store(ns + 1, SeqCst);
        if self.entry_awaited.swap(false, SeqCst) {
            // Once through the lock, so that the waiter is either asleep or has yet to look.
            drop(self.lock_control());
            self.changed.notify_all();
        }
    }
}
