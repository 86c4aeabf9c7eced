//! A virtual machine as a whole: the object that verbs, control socket and migration use.
//!
//! A [`Vm`] is a handle; clones refer to the same VM. Its vCPU has a thread of its own, which runs
//! the guest or is parked. To access what the guest may access, a thread pauses the vCPU and holds
//! the [`Paused`] guard: while it is held, nothing of the VM runs or changes, and the holder's own
//! thread captures and applies. Dropping the guard leaves the VM paused; only [`Paused::resume`]
//! lets it run.
//!
//! ```text
//!            boot/prepare            resume                 pause, quiesce
//!   Vm::boot ─────────────▶ Paused ─────────▶ Running ─────────────────────▶ Paused
//!   Vm::prepare                │                 │  guest exits, fails,         │
//!                              │ stop            │  breaks a rule; stop         │ moved (after the commit), stop
//!                              ▼                 ▼                              ▼
//!                            Ended             Ended                          Ended
//! ```
//!
//! On the source of a move: a view of [`Vm::dirty_log`] while it runs, [`Vm::quiesce`],
//! then [`Paused::capture`], and in the end either [`Paused::resume`] with
//! [`ResumeReason::Resumed`] or, after the commit, [`Paused::moved`], whose [`ForwardedPackets`]
//! forwards what still reaches the source's TAP. On the destination: [`Vm::prepare`],
//! [`Writable::write_page`], [`Paused::warm_up`], [`Paused::apply`], [`Paused::resume`] with
//! [`ResumeReason::Migrated`], [`Vm::announce`], [`Vm::deliver_forwarded`].
//!
//! [`Writable::write_page`]: crate::memory::Writable::write_page

mod address;
mod announce;
mod call_off;
pub mod codec;
mod complete;
mod config;
mod debug;
mod decisions;
mod effort;
mod error;
mod fault;
mod forwarded;
mod history;
mod identity;
mod inputs;
mod link;
mod make;
mod network;
mod observer;
mod operation;
mod operator;
mod pause;
mod paused;
mod reclaim;
mod record;
mod resources;
mod resume;
mod shared;
mod slow;
mod state;
mod stats;

pub use crate::vcpu::{
    DebugLink, DebugStop, Debugged, End, GuestFault, InvariantState, Leg, Log, Moment, Next,
    Orders, Outcome, Position, RecordOptions, Replayed, Source, StopReason, Urgency,
};
pub use address::Address;
pub use call_off::{CallOff, CalledOff};
pub use complete::{Incomplete, Waiting};
pub use config::{Config, NetConfig, mac_for};
pub use effort::Effort;
pub use error::Error;
pub use fault::Symbols;
pub use forwarded::ForwardedPackets;
pub use history::{BOUNDS_NS, Histogram, History, MoveOutcome};
pub use identity::{Identity, NetIdentity};
pub use link::LinkError;
pub use observer::{Observer, Unobserved};
pub use operation::{InProgress, NotCancelled, Operation};
pub use operator::Stopped;
pub use paused::Paused;
pub use reclaim::Reclaimed;
pub use resources::Resources;
pub use resume::Resume;
pub use slow::Slow;
pub use state::{ApplyError, VmState};
pub use stats::{DirtyRate, ExitCounts, GuestStats, NetStats, RunState, Stats, mac_text};
pub use vmm_lite_interface::control::ResumeReason;

use crate::{
    devices::console::Console,
    kvm::{DirtyLog, Host, cpu::Features},
    memory::{GuestRam, Writable},
    vcpu::Phase,
};
use shared::Shared;
use std::{
    net::IpAddr,
    os::fd::{AsFd, BorrowedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// How long a vCPU that is to end may take to leave the guest before what it may wait for is ended.
/// It takes tens of microseconds unless it waits for that.
const LET_GO: Duration = Duration::from_millis(100);

/// A virtual machine. Cloning makes another handle for the same VM; dropping the last handle stops
/// it, and returns once its memory, its TAP device and its threads are gone.
#[derive(Clone, Debug)]
pub struct Vm {
    shared: Arc<Shared>,
    _owner: Arc<Owner>,
    host: Host,
}

/// Stops the VM when no handle is left.
#[derive(Debug)]
struct Owner {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.shared.vcpus.control.end(Arc::new(End::Stopped(StopReason::Stop)));
        // The next VM may need the same TAP device.
        for thread in self.threads.drain(..) {
            // A thread that panicked has printed its message.
            let _ = thread.join();
        }
    }
}

impl Vm {
    /// The KVM that it was made with, from which this process can make another VM.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The VM's manifest.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.shared.identity
    }

    /// The CPU features that the guest could have found.
    #[must_use]
    pub fn features(&self) -> Features {
        Features::of_this_host(&self.shared.cpuid)
    }

    /// The guest's memory, for reading.
    #[must_use]
    pub fn ram(&self) -> &Arc<GuestRam> {
        &self.shared.vcpus.ram
    }

    /// The right to write to the memory of a VM that has never run here. `None` if it has.
    #[must_use]
    pub fn unstarted_memory(&self) -> Option<Writable<'_>> {
        let vcpus = &self.shared.vcpus;
        (vcpus.resumes.load(SeqCst) == 0).then(|| vcpus.ram.writable_while_stopped())
    }

    /// The log of pages that change.
    #[must_use]
    pub fn dirty_log(&self) -> &DirtyLog {
        &self.shared.log
    }

    /// The console.
    #[must_use]
    pub fn console(&self) -> &Console {
        self.shared.vcpus.console()
    }

    /// Passes console input to the guest, and waits while it accepts none.
    pub fn console_input(&self, bytes: &[u8]) {
        self.console().feed(bytes, || self.shared.vcpus.control.nudge());
    }

    /// As [`console_input`](Self::console_input), for a client that may disconnect: see
    /// [`Console::feed_unless`].
    pub fn console_input_unless(&self, bytes: &[u8], gone: &AtomicBool) {
        self.console().feed_unless(bytes, gone, || self.shared.vcpus.control.nudge());
    }

    /// Ends the console input.
    pub fn console_eof(&self) {
        self.console().end_input(|| self.shared.vcpus.control.nudge());
    }

    /// Sets the destination, for messages from the commit on.
    pub fn set_destination(&self, to: String) {
        self.shared.set_destination(to);
    }

    /// Whether it runs, is paused, or has ended, and how.
    #[must_use]
    pub fn phase(&self) -> VmPhase {
        match self.shared.phase() {
            Phase::Running => VmPhase::Running,
            Phase::Paused { .. } => VmPhase::Paused,
            Phase::Ended(end) => VmPhase::Ended(end),
        }
    }

    /// Ends the VM as soon as the vCPU can be stopped. The guest is not asked.
    pub fn stop(&self, reason: StopReason) {
        self.end(End::Stopped(reason));
    }

    fn end(&self, end: End) {
        self.shared.vcpus.control.end(Arc::new(end));
    }

    /// Ends the VM because the host failed. The vCPU thread may be blocked by something that
    /// `let_go` ends: that is called when the guest does not run any more, or is just waiting for
    /// it. No instruction of the guest runs after that.
    pub fn fail(
        &self,
        error: impl std::error::Error + Send + Sync + 'static,
        let_go: impl FnOnce(),
    ) {
        let why = Arc::new(End::Vmm(Arc::new(error)));
        // Most often the vCPU is out of the guest before that. Where it waits for what `let_go`
        // ends, a signal is pending, with which KVM does not enter the guest.
        self.shared.vcpus.control.fail(why, Instant::now() + LET_GO, let_go);
    }

    /// Whether it is requested to end.
    #[must_use]
    pub fn stop_wanted(&self) -> bool {
        self.shared.vcpus.control.end_wanted()
    }

    /// Waits for the end.
    #[must_use]
    pub fn wait_end(&self) -> Arc<End> {
        let ended = |phase: &Phase, _| match phase {
            Phase::Ended(end) => Some(Arc::clone(end)),
            Phase::Running | Phase::Paused { .. } => None,
        };
        self.shared.vcpus.control.wait_until(None, ended).expect("there is no deadline")
    }

    /// A descriptor that becomes readable once the VM has ended, for threads that also wait for
    /// other events.
    #[must_use]
    pub fn end_fd(&self) -> i32 {
        self.shared.vcpus.control.platform().end_fd()
    }

    /// The VM's statistics so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats::of(&self.shared)
    }

    /// Delivers a packet (with its virtio-net header) that the source forwarded. `false` when it
    /// had to be dropped. It is for the first network: the protocol's message names none.
    pub fn deliver_forwarded(&self, frame: Vec<u8>) -> bool {
        let taken = self.shared.nets.first().is_some_and(|net| net.forwarded.push(frame));
        if taken {
            self.shared.vcpus.control.nudge();
        }
        taken
    }

    /// The device and the Ethernet address of its network, if it has one.
    #[must_use]
    pub(crate) fn network_device(&self) -> Option<(BorrowedFd<'_>, [u8; 6])> {
        let (net, port) = self.shared.identity.nets.first().zip(self.shared.nets.first())?;
        Some((port.tap.as_fd(), net.mac))
    }

    /// The address under which the network knows the guest, if one was assigned.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.shared.identity.nets.first()?.ip.map(|ip| ip.address)
    }
}
/// A VM's phase; see [`Vm::phase`].
#[derive(Clone, Debug)]
pub enum VmPhase {
    /// The vCPU runs the guest or waits for it.
    Running,
    /// It is stopped and can be resumed.
    Paused,
    /// It will not run again.
    Ended(Arc<End>),
}
