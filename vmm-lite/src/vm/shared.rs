//! What the threads of one machine share, and how they tell each other.
//!
//! Two flags steer the vCPU thread: `wanted` says what it is to do instead of running, and [`Phase`] what it does. Whoever stores to `wanted`
//! then nudges (ends a wait) or kicks (ends the guest); the vCPU thread announces that it is about to wait or to enter before it looks at `wanted`
//! for the last time, so that one of the two sees the other.

pub(super) use super::stats::Exits;
use super::{End, Error, History, Identity, Machine, Steady};
use crate::{
    devices::{
        clock,
        console::Console,
        net::{Counters as NetCounters, Late},
        tap::Tap,
    },
    kvm::{DirtyLog, Kick, PageFaults},
    memory::GuestRam,
};
use kvm_bindings::CpuId;
use std::{
    fmt,
    os::fd::AsRawFd,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError,
        atomic::{
            AtomicBool, AtomicI32, AtomicU8, AtomicU32, AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::{Duration, Instant, SystemTime},
};
use vmm_lite_interface::layout::{CONTROL_PAGE, PAGE_SIZE};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// For so long a thread waits for another without sleep where blackout depends on it: to be woken takes tens of microseconds. Not for much longer: a thread of real-time priority
/// that does so keeps the host's network, whose work is done by ordinary threads, from its CPU.
const AWAKE: Duration = Duration::from_micros(250);

/// What the vCPU thread is to do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Debug)]
#[repr(u8)]
pub(super) enum Wanted {
    /// Run the guest.
    Run = 0,
    /// Run the guest until it says that it is quiescent.
    Quiesce = 1,
    /// Stop as soon as possible.
    Pause = 2,
}

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

pub(super) struct Shared {
    pub identity: Identity,
    pub ram: Arc<GuestRam>,
    pub log: DirtyLog,
    /// What KVM supports.
    pub cpuid: CpuId,
    pub console: Console,
    pub exits: Exits,
    pub net_counters: Option<Arc<NetCounters>>,
    pub late: Option<Arc<Late>>,
    pub page_faults: Option<Arc<PageFaults>>,
    pub announcer: Option<Tap>,
    pub made: Instant,
    /// Pages a second that the guest wrote when somebody last looked, and when that was.
    pub dirty_rate: Mutex<Option<(u64, SystemTime)>>,
    history: Mutex<History>,
    pub resumes: AtomicU64,
    /// A move is under way.
    pub moving: AtomicBool,
    /// Readable when somebody wants it called off.
    pub cancel: EventFd,
    /// The vCPU's thread, once it has begun.
    pub thread: AtomicI32,
    /// Somebody wants the machine to end.
    pub stopping: AtomicBool,
    /// The machine is about to be stopped, and captured.
    pub stop_near: AtomicBool,
    /// The machine may run elsewhere: it must not run here (rule R1), and nothing is said in its name. Locked for as long as something is.
    fenced: Mutex<bool>,
    machine: Mutex<Machine>,
    kick: Arc<Kick>,
    wanted: AtomicU8,
    wake: EventFd,
    /// Readable for good once the machine has ended.
    ended: EventFd,
    waiting: AtomicBool,
    phase: Mutex<Phase>,
    changed: Condvar,
    /// Whether the phase is `Running`, for who looks again and again.
    running: AtomicBool,
    /// The machine is about to be resumed.
    roused: AtomicBool,
    /// Nanoseconds after `made` at which the guest was last entered after a resume, plus one; 0 before.
    entered: AtomicU64,
    /// Number of the last quiesce request.
    quiesce_number: AtomicU32,
    /// What the vCPU's thread last found not to change any more.
    steady: Mutex<Option<Steady>>,
    /// The guest is to run for a moment, as something was written that it is to see.
    look: AtomicBool,
    /// Someone waits for `entered`.
    entry_awaited: AtomicBool,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vm").field("identity", &self.identity).finish_non_exhaustive()
    }
}

/// Waits without sleep until `so`, or for so long that a sleep is worth it.
fn awake_until(so: impl Fn() -> bool) {
    let end = Instant::now() + AWAKE;
    while !so() && Instant::now() < end {
        std::thread::yield_now();
    }
}

impl Shared {
    pub(super) fn new(
        identity: Identity,
        ram: Arc<GuestRam>,
        log: DirtyLog,
        cpuid: CpuId,
        machine: Machine,
        console: Console,
        announcer: Option<Tap>,
    ) -> Result<Self, Error> {
        let event = || {
            EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)
                .map_err(|source| Error::Host { doing: "make an event descriptor", source })
        };
        let (wake, ended, cancel) = (event()?, event()?, event()?);
        let now = Instant::now();
        Ok(Self {
            identity,
            ram,
            log,
            cpuid,
            console,
            exits: Exits::default(),
            net_counters: machine.net_counters(),
            late: machine.late(),
            page_faults: machine.page_faults(),
            announcer,
            made: now,
            dirty_rate: Mutex::default(),
            history: Mutex::default(),
            resumes: AtomicU64::new(0),
            moving: AtomicBool::new(false),
            cancel,
            thread: AtomicI32::new(0),
            stopping: AtomicBool::new(false),
            stop_near: AtomicBool::new(false),
            fenced: Mutex::new(false),
            kick: machine.kick_handle(),
            machine: Mutex::new(machine),
            wanted: AtomicU8::new(Wanted::Run as u8),
            wake,
            ended,
            waiting: AtomicBool::new(false),
            phase: Mutex::new(Phase::Paused { quiescent: false, since: now }),
            changed: Condvar::new(),
            running: AtomicBool::new(false),
            roused: AtomicBool::new(false),
            entered: AtomicU64::new(0),
            quiesce_number: AtomicU32::new(0),
            steady: Mutex::default(),
            look: AtomicBool::new(false),
            entry_awaited: AtomicBool::new(false),
        })
    }

    // What others ask of the vCPU thread.

    /// Says what the vCPU thread is to do instead of what it does.
    pub(super) fn want(&self, wanted: Wanted) {
        self.wanted.store(wanted as u8, SeqCst);
        self.nudge();
        if wanted == Wanted::Pause {
            self.kick.kick();
        }
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

    /// Waits until the guest has answered [`ask_to_give_up`](Self::ask_to_give_up), does not run, or `deadline`.
    pub(super) fn wait_gave_up(&self, deadline: Instant) {
        let control = self.ram.control_page();
        let answered =
            || control.give_up_answer.load(SeqCst) == control.give_up_request.load(SeqCst);
        let mut phase = self.lock_phase();
        while matches!(*phase, Phase::Running) && !answered() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            phase =
                self.changed.wait_timeout(phase, left).unwrap_or_else(PoisonError::into_inner).0;
        }
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
        let mut phase = self.lock_phase();
        if !matches!(*phase, Phase::Running) {
            return None;
        }
        *phase = Phase::Paused { quiescent: false, since: Instant::now() };
        self.running.store(false, SeqCst);
        self.changed.notify_all();
        Some(machine)
    }

    /// Waits until the vCPU is stopped, or `deadline`: then `false`.
    pub(super) fn wait_stopped(&self, deadline: Option<Instant>) -> Result<bool, Error> {
        awake_until(|| !self.running.load(SeqCst));
        let mut phase = self.lock_phase();
        loop {
            match &*phase {
                Phase::Paused { .. } => return Ok(true),
                Phase::Ended(end) => return Err(Error::Ended(Arc::clone(end))),
                Phase::Running => {}
            }
            phase = match deadline {
                None => self.changed.wait(phase).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Ok(false);
                    }
                    self.changed.wait_timeout(phase, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Ends the machine, whatever it does.
    pub(super) fn stop(&self, end: End) {
        self.stopping.store(true, SeqCst);
        self.want(Wanted::Pause);
        let mut phase = self.lock_phase();
        loop {
            match &*phase {
                Phase::Ended(_) => return,
                Phase::Paused { .. } => break,
                Phase::Running => {
                    phase = self.changed.wait(phase).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
        *phase = Phase::Ended(Arc::new(end));
        drop(phase);
        self.tell_end();
    }

    /// Tells everybody who may wait that the phase is `Ended`.
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
        let mut phase = self.lock_phase();
        loop {
            if let Phase::Ended(end) = &*phase {
                return Arc::clone(end);
            }
            phase = self.changed.wait(phase).unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub(super) fn wait_entered(&self, patience: Duration) -> Option<Instant> {
        let deadline = Instant::now() + patience;
        awake_until(|| self.entered.load(SeqCst) != 0);
        let mut phase = self.lock_phase();
        loop {
            self.entry_awaited.store(true, SeqCst);
            match self.entered.load(SeqCst) {
                0 => {}
                n => return Some(self.made + Duration::from_nanos(n - 1)),
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || matches!(*phase, Phase::Ended(_)) {
                return None;
            }
            phase =
                self.changed.wait_timeout(phase, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    pub(super) fn phase(&self) -> Phase {
        self.lock_phase().clone()
    }

    fn lock_phase(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn lock_fenced(&self) -> MutexGuard<'_, bool> {
        self.fenced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn lock_history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn lock_machine(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The vCPU thread takes the machine to run it; `None` if it is not to run.
    pub(super) fn lock_running(&self) -> Option<MutexGuard<'_, Machine>> {
        let machine = self.lock_machine();
        // Only who holds it makes it run, or takes it from where it waits.
        matches!(*self.lock_phase(), Phase::Running).then_some(machine)
    }

    pub(super) fn try_lock_machine(&self) -> Option<MutexGuard<'_, Machine>> {
        match self.machine.try_lock() {
            Ok(machine) => Some(machine),
            Err(TryLockError::Poisoned(p)) => Some(p.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Lets the vCPU thread run. The caller holds the machine and gives it up right after.
    pub(super) fn run(&self) -> Result<(), Error> {
        let mut phase = self.lock_phase();
        match &*phase {
            Phase::Ended(end) => return Err(Error::Ended(Arc::clone(end))),
            Phase::Running => return Err(Error::Busy),
            Phase::Paused { .. } => {}
        }
        self.entered.store(0, SeqCst);
        self.resumes.fetch_add(1, Relaxed);
        self.wanted.store(Wanted::Run as u8, SeqCst);
        *phase = Phase::Running;
        self.running.store(true, SeqCst);
        // It is awake, or is going to be; not once more when it stops.
        self.roused.store(false, SeqCst);
        drop(phase);
        self.changed.notify_all();
        // The thread of a machine that was taken while its guest waited may still wait for the same.
        self.nudge();
        Ok(())
    }

    /// Makes a paused machine one that has ended.
    pub(super) fn end_paused(&self, end: End) -> Result<(), Error> {
        let mut phase = self.lock_phase();
        match &*phase {
            Phase::Paused { .. } => *phase = Phase::Ended(Arc::new(end)),
            Phase::Ended(end) => return Err(Error::Ended(Arc::clone(end))),
            Phase::Running => return Err(Error::Busy),
        }
        drop(phase);
        self.tell_end();
        Ok(())
    }

    // The vCPU thread's own side.

    /// Parks the vCPU thread until it is to run (`true`) or the machine has ended (`false`).
    pub(super) fn park(&self) -> bool {
        let mut phase = self.lock_phase();
        loop {
            match &*phase {
                Phase::Running => return true,
                Phase::Ended(_) => return false,
                Phase::Paused { .. } => {}
            }
            if self.roused.swap(false, SeqCst) {
                drop(phase);
                // A machine that is given up instead is to be gone at once, with its TAP.
                awake_until(|| self.running.load(SeqCst) || self.stopping.load(SeqCst));
                phase = self.lock_phase();
                continue;
            }
            phase = self.changed.wait(phase).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Says that [`run`](Self::run) is about to be called.
    pub(super) fn rouse(&self) {
        // Through the lock, so that the thread is either asleep or has yet to look.
        let phase = self.lock_phase();
        self.roused.store(true, SeqCst);
        drop(phase);
        self.changed.notify_all();
    }

    /// Says that the vCPU is stopped, and gives the machine up: in one, so that nobody finds a machine that is free and takes it for one that waits.
    pub(super) fn stopped(&self, machine: MutexGuard<'_, Machine>, phase: Phase) {
        let ended = matches!(phase, Phase::Ended(_));
        {
            let mut now = self.lock_phase();
            *now = phase;
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
        self.wanted.load(SeqCst) == Wanted::Pause as u8
    }

    pub(super) fn steady(&self) -> Option<Steady> {
        self.steady.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_steady(&self, steady: Option<Steady>) {
        *self.steady.lock().unwrap_or_else(PoisonError::into_inner) = steady;
    }

    /// Says that the guest has answered something.
    pub(super) fn answered(&self) {
        // Once through the lock, so that who waits is either asleep or has yet to look.
        drop(self.lock_phase());
        self.changed.notify_all();
    }

    /// Whether the guest is to run for a moment; it is asked once.
    pub(super) fn look_wanted(&self) -> bool {
        self.look.swap(false, SeqCst)
    }

    pub(super) fn quiesce_wanted(&self) -> bool {
        self.wanted.load(SeqCst) == Wanted::Quiesce as u8
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

    /// Notes the first entry after a resume. Who waits for it already is woken right here, which takes the guest a microsecond or two; who comes
    /// later finds the note.
    pub(super) fn note_entry(&self) {
        let ns = self.made.elapsed().as_nanos() as u64;
        self.entered.store(ns + 1, SeqCst);
        if self.entry_awaited.swap(false, SeqCst) {
            // Once through the lock, so that the waiter is either asleep or has yet to look.
            drop(self.lock_phase());
            self.changed.notify_all();
        }
    }
}
