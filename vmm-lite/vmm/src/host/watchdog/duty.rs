//! What a thread says of itself.

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

/// What a thread does for others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Doing {
    /// Nothing: it waits for something to do, and owes nobody an answer.
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
    /// Another request.
    Request,
    /// Clients and signals are taken.
    Accept,
    /// Other hosts are taken.
    AcceptHosts,
    /// The figures are served.
    Scrape,
    /// A VM is received, or its source is served.
    Receive,
    /// Memory is loaded from a snapshot.
    Load,
    /// Memory is copied.
    Copy,
    /// A copy is written.
    Write,
}

impl Doing {
    const ALL: [Self; 20] = [
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
        Self::Request,
        Self::Accept,
        Self::AcceptHosts,
        Self::Scrape,
        Self::Receive,
        Self::Load,
        Self::Copy,
        Self::Write,
    ];

    /// Serving a verb of the control socket.
    #[must_use]
    pub fn verb(verb: &str) -> Self {
        match verb {
            "stats" => Self::Stats,
            "metrics" => Self::Metrics,
            "pause" => Self::Pause,
            "resume" => Self::Resume,
            "stop" => Self::Stop,
            "cancel" => Self::Cancel,
            "migrate" => Self::Migrate,
            "snapshot" => Self::Snapshot,
            "fork" => Self::Fork,
            "revert" => Self::Revert,
            _ => Self::Request,
        }
    }

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

/// One thread's word. Only that thread stores to it.
#[derive(Debug)]
pub(super) struct Slot {
    name: &'static str,
    tid: i32,
    /// The number of the step that it is at, and in the lowest byte what it does there.
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

    /// Whether it is in the middle of something, if only to wait.
    pub fn busy(&self) -> bool {
        self.doing() != Doing::Nothing
    }

    /// What it owes.
    pub fn look(&self) -> Option<Look> {
        let step = self.step.load(SeqCst);
        let doing = self.doing();
        if matches!(doing, Doing::Nothing | Doing::Waiting) {
            return None;
        }
        // Both only grow, so that their sum stays the same only if both do.
        let progress = step.wrapping_add(cpu_time(self.tid));
        Some(Look { thread: self.name, tid: self.tid, doing: doing.text(), progress })
    }
}

/// The CPU time of a thread of this process in ns; 0 of one that has ended.
fn cpu_time(tid: i32) -> u64 {
    // As `pthread_getcpuclockid(3)` makes it: of a thread (4), what the scheduler counts (2).
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

/// The calling thread is watched until this is dropped.
#[derive(Debug)]
#[must_use]
pub struct Attends {
    slot: Arc<Slot>,
    /// For the thread that made it only.
    _here: PhantomData<*const ()>,
}

/// Has the calling thread watched. It owes nothing yet.
pub fn attend(name: &'static str) -> Attends {
    let slot = Arc::new(Slot { name, tid: this_thread(), step: AtomicU64::new(0) });
    lock(&STATE.slots).push(Arc::clone(&slot));
    OWN.with(|own| own.replace(Some(Arc::clone(&slot))));
    Attends { slot, _here: PhantomData }
}

impl Drop for Attends {
    fn drop(&mut self) {
        lock(&STATE.slots).retain(|slot| !Arc::ptr_eq(slot, &self.slot));
        // At the end of a thread there may be nothing to take it out of any more.
        let _ = OWN.try_with(|own| own.replace(None));
    }
}

/// The calling thread does something until this is dropped, and then again what it did before.
#[derive(Debug)]
#[must_use]
pub struct Owes {
    before: Option<(Arc<Slot>, Doing)>,
    _here: PhantomData<*const ()>,
}

/// Says what the calling thread does, if that is [watched](attend).
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

/// Does what may rightly block the calling thread for long: it is not watched meanwhile. A thread
/// that does nothing for others goes on doing so.
pub fn waits<T>(wait: impl FnOnce() -> T) -> T {
    let _waits = Owes::of(own().filter(|slot| slot.busy()), Doing::Waiting);
    wait()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_doing_is_found_by_its_number() {
        for (n, doing) in Doing::ALL.into_iter().enumerate() {
            assert_eq!(doing as usize, n);
        }
    }

    #[test]
    fn a_thread_owes_what_it_says_and_again_what_it_said_before() {
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
            // Blocked, until it is to work, and then without another step.
            gone.recv().unwrap();
            let begun = cpu_time(this_thread());
            while cpu_time(this_thread()) == begun {}
            tell.send(own().unwrap()).unwrap();
            gone.recv().unwrap();
        });
        let slot = told.recv().unwrap();
        let look = || slot.look().unwrap().progress;
        // It has yet to fall asleep, which takes it a while: looked at until nothing changes.
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
