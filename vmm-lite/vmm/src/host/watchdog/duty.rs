//! What a thread states about its own work.

use super::{Look, STATE, lock};
use crate::host::this_thread;
use nix::time::{ClockId, clock_gettime};
use std::{
    cell::RefCell,
    marker::PhantomData,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
};

/// The work that a thread does for others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Doing {
    /// None: it waits for work, and owes no answer.
    Nothing,
    /// It waits for another thread, a peer or a client, which have deadlines of their own or are
    /// watched themselves.
    Waiting,
    /// `stats`.
    Stats,
    /// `metrics`.
    Metrics,
    /// `pause`.
    Pause,
    /// `resume`.
    Resume,
    /// `stop`, or a signal.
    Stop,
    /// `cancel`.
    Cancel,
    /// `migrate`.
    Migrate,
    /// `snapshot`.
    Snapshot,
    /// `fork`.
    Fork,
    /// `revert`.
    Revert,
    /// `protect`, `unprotect` or `failover`.
    Protect,
    /// Another request.
    Request,
    /// It accepts clients and takes signals.
    Accept,
    /// It accepts connections of other hosts.
    AcceptHosts,
    /// It serves the metrics.
    Scrape,
    /// It receives a VM, or serves the source.
    Receive,
    /// It loads memory from a snapshot.
    Load,
    /// It copies memory.
    Copy,
    /// It writes a copy.
    Write,
}

impl Doing {
    const ALL: [Self; 21] = [
        Self::Nothing,
        Self::Waiting,
        Self::Stats,
        Self::Metrics,
        Self::Pause,
        Self::Resume,
        Self::Stop,
        Self::Cancel,
        Self::Migrate,
        Self::Snapshot,
        Self::Fork,
        Self::Revert,
        Self::Protect,
        Self::Request,
        Self::Accept,
        Self::AcceptHosts,
        Self::Scrape,
        Self::Receive,
        Self::Load,
        Self::Copy,
        Self::Write,
    ];

    const fn text(self) -> &'static str {
        match self {
            Self::Nothing => "owes nothing",
            Self::Waiting => "waits",
            Self::Stats => "serves `stats`",
            Self::Metrics => "serves `metrics`",
            Self::Pause => "serves `pause`",
            Self::Resume => "serves `resume`",
            Self::Stop => "ends the VM",
            Self::Cancel => "serves `cancel`",
            Self::Migrate => "serves `migrate`",
            Self::Snapshot => "serves `snapshot`",
            Self::Fork => "serves `fork`",
            Self::Revert => "serves `revert`",
            Self::Protect => "serves `protect`, `unprotect` or `failover`",
            Self::Request => "serves a request",
            Self::Accept => "takes clients of the control socket, and signals",
            Self::AcceptHosts => "takes connections of other hosts",
            Self::Scrape => "serves --metrics",
            Self::Receive => "receives a VM",
            Self::Load => "loads memory from a snapshot",
            Self::Copy => "copies the guest's memory",
            Self::Write => "writes a copy of the VM",
        }
    }
}

/// One thread's statement. Only that thread stores to it.
#[derive(Debug)]
pub(super) struct Slot {
    name: &'static str,
    tid: i32,
    /// The number of the thread's current step; the lowest byte is the kind of work.
    step: AtomicU64,
}

impl Slot {
    fn set(&self, doing: Doing) {
        let step = (self.step.load(SeqCst) >> 8) + 1;
        self.step.store(step << 8 | doing as u64, SeqCst);
        if doing as u8 > Doing::Waiting as u8 {
            STATE.wake();
        }
    }

    fn doing(&self) -> Doing {
        let doing = usize::from(self.step.load(SeqCst) as u8);
        Doing::ALL.get(doing).copied().unwrap_or(Doing::Nothing)
    }

    /// Whether it has work in progress, even if it only waits.
    pub fn busy(&self) -> bool {
        self.doing() != Doing::Nothing
    }

    /// The work that it owes.
    pub fn look(&self) -> Option<Look> {
        let step = self.step.load(SeqCst);
        let doing = self.doing();
        if matches!(doing, Doing::Nothing | Doing::Waiting) {
            return None;
        }
        // Both only grow, so their sum is the same only if both are.
        let progress = step.wrapping_add(cpu_time(self.tid));
        Some(Look { thread: self.name, tid: self.tid, doing: doing.text(), progress })
    }
}

/// The CPU time of a thread of this process in ns; 0 if it has ended.
fn cpu_time(tid: i32) -> u64 {
    // As `pthread_getcpuclockid(3)` builds it: for a thread (4), the scheduler's count (2).
    let clock = ClockId::from_raw((!tid) << 3 | 4 | 2);
    let ns = |time: nix::sys::time::TimeSpec| {
        (time.tv_sec() as u64).wrapping_mul(1_000_000_000).wrapping_add(time.tv_nsec() as u64)
    };
    clock_gettime(clock).map_or(0, ns)
}

thread_local! {
    static OWN: RefCell<Option<Arc<Slot>>> = const { RefCell::new(None) };
}

fn own() -> Option<Arc<Slot>> {
    OWN.try_with(|own| own.try_borrow().ok()?.clone()).ok().flatten()
}

/// The watchdog watches the calling thread until this is dropped.
#[derive(Debug)]
#[must_use]
pub struct Attends {
    slot: Arc<Slot>,
    /// Only for the thread that made it.
    _here: PhantomData<*const ()>,
}

/// Has the watchdog watch the calling thread. The thread owes nothing yet.
pub fn attend(name: &'static str) -> Attends {
    let slot = Arc::new(Slot { name, tid: this_thread(), step: AtomicU64::new(0) });
    lock(&STATE.slots).push(Arc::clone(&slot));
    OWN.with(|own| own.replace(Some(Arc::clone(&slot))));
    Attends { slot, _here: PhantomData }
}

impl Drop for Attends {
    fn drop(&mut self) {
        lock(&STATE.slots).retain(|slot| !Arc::ptr_eq(slot, &self.slot));
        // While a thread ends, its thread-local slot may be gone already.
        let _ = OWN.try_with(|own| own.replace(None));
    }
}

/// The calling thread does this work until this is dropped, and then what it did before.
#[derive(Debug)]
#[must_use]
pub struct Owes {
    before: Option<(Arc<Slot>, Doing)>,
    _here: PhantomData<*const ()>,
}

/// States what the calling thread does, if the watchdog [watches](attend) it.
pub fn owe(doing: Doing) -> Owes {
    Owes::of(own(), doing)
}

impl Owes {
    fn of(slot: Option<Arc<Slot>>, doing: Doing) -> Self {
        let before = slot.map(|slot| {
            let before = slot.doing();
            slot.set(doing);
            (slot, before)
        });
        Self { before, _here: PhantomData }
    }
}

impl Drop for Owes {
    fn drop(&mut self) {
        if let Some((slot, before)) = self.before.take() {
            slot.set(before);
        }
    }
}

/// Runs a call that may legitimately block the calling thread for long: the watchdog does not watch
/// it meanwhile. A thread that owes nothing continues to owe nothing.
pub fn waits<T>(wait: impl FnOnce() -> T) -> T {
    let _waits = Owes::of(own().filter(|slot| slot.busy()), Doing::Waiting);
    wait()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_work_is_found_by_its_number() {
        for (n, doing) in Doing::ALL.into_iter().enumerate() {
            assert_eq!(doing as usize, n);
        }
    }

    #[test]
    fn a_thread_owes_its_current_work_and_then_the_previous_again() {
        let _attends = attend("duty");
        let slot = own().unwrap();
        let doing = || slot.look().map(|look| look.doing);
        assert_eq!(doing(), None);
        waits(|| assert!(!slot.busy()));
        {
            let _owes = owe(Doing::Pause);
            assert_eq!(doing(), Some("serves `pause`"));
            waits(|| assert_eq!((doing(), slot.busy()), (None, true)));
            {
                let _owes = owe(Doing::Accept);
                assert_eq!(doing(), Some(Doing::Accept.text()));
            }
            assert_eq!(doing(), Some("serves `pause`"));
        }
        assert_eq!((doing(), slot.busy()), (None, false));
    }

    #[test]
    fn progress_is_another_step_or_cpu_time_and_nothing_else() {
        let (tell, told) = std::sync::mpsc::channel();
        let (go, gone) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let _attends = attend("sleeper");
            let _owes = owe(Doing::Request);
            tell.send(own().unwrap()).unwrap();
            // The thread blocks until it is told to work, and then works without another step.
            gone.recv().unwrap();
            let begun = cpu_time(this_thread());
            while cpu_time(this_thread()) == begun {}
            tell.send(own().unwrap()).unwrap();
            gone.recv().unwrap();
        });
        let slot = told.recv().unwrap();
        let look = || slot.look().unwrap().progress;
        // The thread needs some time to fall asleep: look until nothing changes.
        let mut before = look();
        loop {
            std::thread::sleep(std::time::Duration::from_millis(20));
            let now = look();
            if now == before {
                break;
            }
            before = now;
        }
        go.send(()).unwrap();
        let slot = told.recv().unwrap();
        assert!(slot.look().unwrap().progress > before);
        go.send(()).unwrap();
        thread.join().unwrap();
        assert_eq!(cpu_time(slot.tid), 0, "a thread that has ended has no clock");
    }
}
