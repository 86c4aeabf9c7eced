//! How threads start, stop and hold the vCPUs of one VM.
//!
//! Each vCPU has a thread, which runs the guest with the vCPU's lock held, releases the lock while
//! the guest waits, or is parked. Another thread that wants to touch the VM stops all vCPUs and
//! holds their locks. The crate knows neither KVM nor devices, so a model checker can run it
//! (`tests/interleavings.rs`).
//!
//! - `wants`: requests to the vCPU threads, and how these learn of them
//! - `kick`: makes a thread leave the guest
//! - `state`: the phase, and waits for it to change
//! - `hold`: taking hold of the VM, a barrier over its vCPUs
//! - `run`: resume and stop, from both sides
//! - `end`: the end of a VM
//!
//! Lock order: the vCPUs' locks, in their order; then the state's. Only `take_paused` goes against
//! it, and tries.

mod end;
mod hold;
mod kick;
mod run;
mod state;
mod sync;
mod wants;

pub use hold::{Held, NotHeld, OtherHolder, Waited};
pub use kick::{Guest, Kick};
pub use run::Stopped;
pub use state::Phase;
pub use wants::Want;

use std::{fmt, sync::Arc, time::Instant};
use sync::{AtomicBool, Condvar, Mutex, SeqCst, TryMutex};

/// What the control needs of its surroundings.
pub trait Platform {
    /// What a vCPU's lock protects.
    type Machine;
    /// How a VM ended.
    type End: Clone;
    /// How a thread is got out of the guest.
    type Guest: Guest;
    /// How the wait of a vCPU thread is ended.
    type Wake: Wake;

    /// Called once, when the phase is `Ended` and before those who wait for that are woken.
    fn ended(&self);

    /// Calls `wait`, which sleeps until another thread changes something.
    fn waits<T>(wait: impl FnOnce() -> T) -> T {
        wait()
    }

    /// Polls until `so` holds, or until sleeping is better. It may return at any time.
    fn poll_for_a_moment(so: impl Fn() -> bool);

    /// Lets another thread run, which is to release a lock.
    fn yield_now();
}

/// Ends the wait of a vCPU thread.
pub trait Wake {
    /// Ends the wait in progress, or the next one.
    fn wake(&self);
}

/// A vCPU.
struct Member<P: Platform> {
    machine: TryMutex<P::Machine>,
    kick: Arc<Kick<P::Guest>>,
    wake: P::Wake,
    /// Its thread waits for the guest, or is about to.
    waiting: AtomicBool,
}

/// The control of one VM's vCPUs.
pub struct Control<P: Platform> {
    platform: P,
    members: Box<[Member<P>]>,
    wants: wants::Wants,
    state: Mutex<state::State<P::End>>,
    changed: Condvar,
    /// Whether the phase is `Running`, for a thread that polls it.
    runs: AtomicBool,
    /// The VM is about to be resumed.
    prewoken: AtomicBool,
}

impl<P: Platform> fmt::Debug for Control<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").field("vcpus", &self.members.len()).finish_non_exhaustive()
    }
}

impl<P: Platform> Control<P> {
    /// The control of a paused VM with these vCPUs, from 1 to 64.
    ///
    /// # Panics
    /// With another number of them.
    pub fn new(
        platform: P,
        vcpus: impl IntoIterator<Item = (P::Machine, Arc<Kick<P::Guest>>, P::Wake)>,
    ) -> Self {
        let members: Box<[_]> = vcpus
            .into_iter()
            .map(|(machine, kick, wake)| Member {
                machine: TryMutex::new(machine),
                kick,
                wake,
                waiting: AtomicBool::new(false),
            })
            .collect();
        assert!((1..=64).contains(&members.len()), "a bit for each vCPU");
        let state = state::State {
            phase: Phase::Paused { quiescent: false, since: Instant::now() },
            held: false,
            running: 0,
            quiescent: false,
            end: None,
            failure: None,
        };
        Self {
            platform,
            members,
            wants: wants::Wants::new(),
            state: Mutex::new(state),
            changed: Condvar::new(),
            runs: AtomicBool::new(false),
            prewoken: AtomicBool::new(false),
        }
    }

    /// The platform.
    pub fn platform(&self) -> &P {
        &self.platform
    }

    /// How many vCPUs there are.
    pub fn vcpus(&self) -> usize {
        self.members.len()
    }

    /// The handle for kicking a vCPU.
    pub fn kick(&self, member: usize) -> &Kick<P::Guest> {
        &self.members[member].kick
    }

    /// What ends the wait of a vCPU's thread.
    pub fn wake(&self, member: usize) -> &P::Wake {
        &self.members[member].wake
    }

    /// Announces that a vCPU's thread is about to wait (or no longer does).
    pub fn set_waiting(&self, member: usize, waiting: bool) {
        self.members[member].waiting.store(waiting, SeqCst);
    }

    /// Whether it does.
    pub fn is_waiting(&self, member: usize) -> bool {
        self.members[member].waiting.load(SeqCst)
    }

    /// Whether the phase is `Running`, without the lock.
    pub fn runs(&self) -> bool {
        self.runs.load(SeqCst)
    }
}
