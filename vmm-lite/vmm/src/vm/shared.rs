//! What the threads of one VM share. [`steering`](super::steering) describes how they steer the
//! vCPU thread.
//!
//! Lock order: `machine`, then `control`; `fenced`, `history`, `rates`, `invariant` and
//! `dirty_rate` are held alone or innermost.

pub(super) use super::stats::Exits;
use super::{
    Error, History, Identity, InvariantState, Machine,
    network::NetPort,
    steering::{Control, Phase},
};
use crate::{
    devices::{console::Console, throttle::Rates},
    kvm::{DirtyLog, Kick, PageFaults},
    memory::GuestRam,
};
use kvm_bindings::CpuId;
use std::{
    fmt,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError,
        atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64},
    },
    time::{Instant, SystemTime},
};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

pub(super) struct Shared {
    pub identity: Identity,
    pub ram: Arc<GuestRam>,
    pub log: DirtyLog,
    /// The CPU features that KVM supports.
    pub cpuid: CpuId,
    pub console: Console,
    pub exits: Exits,
    /// Its network devices, in the order of the networks in its manifest.
    pub nets: Vec<NetPort>,
    pub page_faults: Option<Arc<PageFaults>>,
    pub made: Instant,
    /// Pages per second that the guest wrote in the last measurement, and the time of that.
    pub dirty_rate: Mutex<Option<(u64, SystemTime)>>,
    history: Mutex<History>,
    /// The rates of its network and its console.
    rates: Mutex<Rates>,
    pub resumes: AtomicU64,
    /// Readable when the operation in progress is to be cancelled.
    pub cancel: EventFd,
    /// Readable when an operator vouches that the VM runs nowhere else.
    pub vouched: EventFd,
    /// It was once resumed by operator override.
    pub was_vouched_for: AtomicBool,
    /// The vCPU thread, once it has started.
    pub thread: AtomicI32,
    /// The VM is to end: it is not run again.
    pub stopping: AtomicBool,
    /// The VM is about to be stopped and captured.
    pub stop_near: AtomicBool,
    /// The VM may run elsewhere: it must not run here (rule R1), and nothing is sent in its name.
    /// Locked while something is sent.
    fenced: Mutex<bool>,
    machine: Mutex<Machine>,
    pub(super) kick: Arc<Kick>,
    /// Numbers of threads that want the vCPU stopped, and that want the guest to quiesce. Each
    /// withdraws only its own request, so that none is lost when the VM is resumed meanwhile.
    pub(super) pauses: AtomicU32,
    pub(super) quiesces: AtomicU32,
    pub(super) wake: EventFd,
    /// Readable for good once the VM has ended.
    pub(super) ended: EventFd,
    pub(super) waiting: AtomicBool,
    pub(super) control: Mutex<Control>,
    pub(super) changed: Condvar,
    /// Whether the phase is `Running`, for a thread that polls it.
    pub(super) running: AtomicBool,
    /// The VM is about to be resumed.
    pub(super) prewoken: AtomicBool,
    /// Nanoseconds after `made` at which the guest was last entered after a resume, plus one; 0
    /// before that.
    pub(super) entered: AtomicU64,
    /// Number of the last quiesce request.
    pub(super) quiesce_number: AtomicU32,
    /// The invariant state that the vCPU thread last found.
    invariant: Mutex<Option<InvariantState>>,
    /// The guest has to run for a moment, as it must see something that was written.
    pub(super) look: AtomicBool,
    /// A thread waits for `entered`.
    pub(super) entry_awaited: AtomicBool,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vm").field("identity", &self.identity).finish_non_exhaustive()
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
        nets: Vec<NetPort>,
    ) -> Result<Self, Error> {
        let event = || {
            EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)
                .map_err(|source| Error::Host { doing: "make an event descriptor", source })
        };
        let (wake, ended, cancel, vouched) = (event()?, event()?, event()?, event()?);
        let now = Instant::now();
        Ok(Self {
            identity,
            ram,
            log,
            cpuid,
            console,
            exits: Exits::default(),
            nets,
            page_faults: machine.page_faults(),
            made: now,
            dirty_rate: Mutex::default(),
            history: Mutex::default(),
            rates: Mutex::default(),
            resumes: AtomicU64::new(0),
            cancel,
            vouched,
            was_vouched_for: AtomicBool::new(false),
            thread: AtomicI32::new(0),
            stopping: AtomicBool::new(false),
            stop_near: AtomicBool::new(false),
            fenced: Mutex::new(false),
            kick: machine.kick_handle(),
            machine: Mutex::new(machine),
            pauses: AtomicU32::new(0),
            quiesces: AtomicU32::new(0),
            wake,
            ended,
            waiting: AtomicBool::new(false),
            control: Mutex::new(Control::new(Phase::Paused { quiescent: false, since: now })),
            changed: Condvar::new(),
            running: AtomicBool::new(false),
            prewoken: AtomicBool::new(false),
            entered: AtomicU64::new(0),
            quiesce_number: AtomicU32::new(0),
            invariant: Mutex::default(),
            look: AtomicBool::new(false),
            entry_awaited: AtomicBool::new(false),
        })
    }

    pub(super) fn lock_fenced(&self) -> MutexGuard<'_, bool> {
        self.fenced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn lock_history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn lock_rates(&self) -> MutexGuard<'_, Rates> {
        self.rates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn lock_machine(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn try_lock_machine(&self) -> Option<MutexGuard<'_, Machine>> {
        match self.machine.try_lock() {
            Ok(machine) => Some(machine),
            Err(TryLockError::Poisoned(p)) => Some(p.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    pub(super) fn invariant(&self) -> Option<InvariantState> {
        self.invariant.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_invariant(&self, invariant: Option<InvariantState>) {
        *self.invariant.lock().unwrap_or_else(PoisonError::into_inner) = invariant;
    }
}
