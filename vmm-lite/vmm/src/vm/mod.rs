//! A virtual machine as a whole: the object that the verbs, the control socket and migration hold.
//!
//! A [`Vm`] is a handle; clones are the same machine. Its vCPU has a thread of its own, which runs
//! the guest or is parked. To touch what the guest may touch, a thread pauses the vCPU and holds
//! the [`Paused`] guard: while it is held, nothing of the machine runs or changes, and the holder's
//! own thread captures and applies. Dropping the guard leaves the machine paused; only
//! [`Paused::resume`] lets it run.
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
//! On the source of a move: [`Vm::dirty_log`] start and take while it runs, [`Vm::quiesce`], then
//! [`Paused::capture`], and in the end either [`Paused::resume`] with [`ResumeReason::Resumed`] or,
//! after the commit, [`Paused::moved`], whose [`LatePackets`] hands on what still reaches the old
//! TAP. On the destination: [`Vm::prepare`], [`GuestRam::write_page`], [`Paused::warm_up`],
//! [`Paused::apply`], [`Paused::resume`] with [`ResumeReason::Migrated`], [`Vm::announce`],
//! [`Vm::deliver_late`].
//!
//! [`GuestRam::write_page`]: crate::memory::GuestRam::write_page

mod address;
mod announce;
mod call_off;
mod complete;
mod config;
mod effort;
mod end;
mod fault;
mod health;
mod history;
mod identity;
mod late;
mod link;
mod machine;
mod observer;
mod operation;
mod operator;
mod output;
mod paused;
mod resources;
mod shared;
mod state;
mod stats;
mod steering;
mod thread;
mod wait;

pub use address::Address;
pub use call_off::{CallOff, CalledOff};
pub use complete::{Incomplete, Waiting};
pub use config::{Config, NetConfig, mac_for};
pub use effort::Effort;
pub use end::{End, GuestFault, StopReason};
pub use fault::Symbols;
pub use history::{BOUNDS_NS, Histogram, History, MoveOutcome};
pub use identity::{Identity, NetIdentity};
pub use late::LatePackets;
pub use link::LinkError;
pub use observer::{Observer, Unobserved};
pub use operation::{InProgress, NotCancelled, Operation};
pub use operator::Stopped;
pub use paused::{Paused, Resume};
pub use resources::Resources;
pub use state::{ApplyError, Steady, VmState};
pub use stats::{DirtyRate, ExitCounts, NetStats, Stats, mac_text};
pub use steering::Slow;
pub use vmm_lite_interface::control::ResumeReason;

use crate::{
    boot::{self, Image},
    devices::{
        console::Console,
        net::{Net, Own},
        tap,
        tap::Tap,
    },
    host::urgent::{Side, Urgent},
    kvm::{self, DirtyLog, Host, cpu::Features},
    memory::{self, GuestRam, PageSet},
};
use machine::Machine;
use shared::Shared;
use std::{
    io,
    net::IpAddr,
    os::fd::AsRawFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};
use steering::{OtherGuard, Phase, Waited};

/// Why a machine could not be made or used.
#[derive(thiserror::Error, Debug)]
pub enum Error {
    /// KVM.
    #[error(transparent)]
    Kvm(#[from] kvm::Error),
    /// Guest memory.
    #[error(transparent)]
    Memory(#[from] memory::Error),
    /// The image or its parameters.
    #[error(transparent)]
    Boot(#[from] boot::Error),
    /// The TAP device.
    #[error(transparent)]
    Tap(#[from] tap::Error),
    /// The image was built with a TAP in mind, or the other way round.
    #[error("{0}")]
    Network(&'static str),
    /// Another call to the host failed.
    #[error("cannot {doing}")]
    Host {
        /// What was tried.
        doing: &'static str,
        /// What the host said.
        source: io::Error,
    },
    /// A state that cannot be applied.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The machine has ended.
    #[error("the VM has ended: {0}")]
    Ended(Arc<End>),
    /// An operation, or another thread, has it.
    #[error("the VM is {}; try again when that is done", what_it_is(.0.as_ref()))]
    Busy(Option<Operation>),
    /// The commit of a move was sent.
    #[error("the VM was handed to {0}, which runs it or may run it: it cannot go on here")]
    HandedOver(String),
    /// It was not.
    #[error("the VM was not handed to another host: resume it without vouching for it")]
    NotHandedOver,
    /// An operator's word against the other host's.
    #[error(
        "the other host answers, and says what becomes of the VM: it runs there, or goes on here \
         by itself"
    )]
    Answers,
    /// It runs.
    #[error("the VM is not paused")]
    NotPaused,
}

fn what_it_is(operation: Option<&Operation>) -> String {
    operation.map_or_else(|| "in use by another request".into(), ToString::to_string)
}

/// A virtual machine. Cloning makes another handle on the same one; dropping the last handle stops
/// it, and when that returns its memory, its TAP device and its thread are gone.
#[derive(Clone, Debug)]
pub struct Vm {
    shared: Arc<Shared>,
    _owner: Arc<Owner>,
    host: Host,
}

/// The guest has given up memory, when asked to and while it ran.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GaveUp(
    /// Number of the last quiesce request before it did.
    u32,
);

/// Stops the machine when no handle is left.
#[derive(Debug)]
struct Owner {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.shared.stop(End::Stopped(StopReason::Stop));
        // Whoever makes the next machine may want the same TAP device.
        if let Some(thread) = self.thread.take() {
            // That it panicked it has said itself.
            let _ = thread.join();
        }
    }
}

impl Vm {
    /// Makes a machine and puts `image` into it. It does not run before it is
    /// [resumed](Paused::resume) with [`ResumeReason::Boot`].
    ///
    /// # Errors
    /// [`Error`]; nothing is left behind.
    pub fn boot(config: &Config, image: &Image, console: Console) -> Result<Self, Error> {
        let tap = config.net.as_ref().map(|net| net.tap.as_str());
        Self::boot_with(&Resources::open(tap)?, config, image, console)
    }

    /// As [`boot`](Self::boot), with what has been opened for it; its TAP device is the machine's.
    ///
    /// # Errors
    /// As [`boot`](Self::boot).
    pub fn boot_with(
        resources: &Resources,
        config: &Config,
        image: &Image,
        console: Console,
    ) -> Result<Self, Error> {
        let net = config.net.as_ref();
        let tap = resources.tap()?;
        let ram = Arc::new(GuestRam::new(config.memory)?);
        boot::load(image, &config.parameters, &ram)?;
        let identity = Identity {
            name: config.parameters.name.clone(),
            memory_size: config.memory,
            interface_version: image.interface_version(),
            net: net.map(|n| NetIdentity { mac: n.mac, ip: config.parameters.ip }),
        };
        let vm = Self::make(resources.host(), identity, ram, tap, console)?;
        vm.shared.lock_machine().set_entry(image.entry())?;
        Ok(vm)
    }

    /// Makes a machine for a guest that is to come from elsewhere: memory, vCPU and TAP are there,
    /// and it never runs before a state was [applied](Paused::apply) and it was
    /// [resumed](Paused::resume). The memory is zero.
    ///
    /// # Errors
    /// [`Error`]; nothing is left behind.
    pub fn prepare(identity: Identity, tap: Option<&str>, console: Console) -> Result<Self, Error> {
        Self::prepare_with(&Resources::with_tap_later(tap)?, identity, console, None)
    }

    /// Like [`prepare`](Self::prepare), with what has been opened for it, and maybe its memory
    /// already, which need not be zero.
    ///
    /// # Errors
    /// As [`prepare`](Self::prepare).
    pub fn prepare_with(
        resources: &Resources,
        identity: Identity,
        console: Console,
        ram: Option<GuestRam>,
    ) -> Result<Self, Error> {
        match (&identity.net, resources.has_tap()) {
            (Some(_), false) => {
                return Err(Error::Network(
                    "the VM has a network: name a TAP device for it with --tap",
                ));
            }
            (None, true) => tracing::info!("the VM has no network: the TAP device stays unused"),
            _ => {}
        }
        let tap = if identity.net.is_some() { resources.tap()? } else { None };
        let ram = Arc::new(match ram {
            Some(ram) => ram,
            None => GuestRam::new(identity.memory_size)?,
        });
        if ram.size() != identity.memory_size {
            return Err(memory::Error::Size(ram.size()).into());
        }
        Self::make(resources.host(), identity, ram, tap, console)
    }

    fn make(
        host: &Host,
        identity: Identity,
        ram: Arc<GuestRam>,
        tap: Option<Tap>,
        console: Console,
    ) -> Result<Self, Error> {
        let thread = thread::start()?;
        let (vcpu, log, cpuid) = host.create(&ram)?;
        let net = match (&identity.net, tap) {
            (Some(net), Some(tap)) => {
                let mut device = Net::new(tap, net.mac)?;
                device.restrict_to(Some(Own::new(net.mac, net.ip.map(|ip| ip.address))));
                Some(device)
            }
            _ => None,
        };
        let announcer = net.as_ref().map(|n| n.tap().try_clone()).transpose()?;
        let machine = Machine::new(vcpu, net, ram.clone())?;
        let shared = Arc::new(Shared::new(identity, ram, log, cpuid, machine, console, announcer)?);
        let thread = Some(thread.take(&shared));
        health::watch(&shared);
        let owner = Owner { shared: Arc::clone(&shared), thread };
        Ok(Self { shared, _owner: Arc::new(owner), host: host.clone() })
    }

    /// The KVM that it was made with, which is good for making another in this process.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Who this machine is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.shared.identity
    }

    /// What the guest could have found its CPU to have.
    #[must_use]
    pub fn features(&self) -> Features {
        Features::of_this_host(&self.shared.cpuid)
    }

    /// The guest's memory. Reading pages is always allowed; writing only while the machine is
    /// paused.
    #[must_use]
    pub fn ram(&self) -> &Arc<GuestRam> {
        &self.shared.ram
    }

    /// The log of pages that change.
    #[must_use]
    pub fn dirty_log(&self) -> &DirtyLog {
        &self.shared.log
    }

    /// The console.
    #[must_use]
    pub fn console(&self) -> &Console {
        &self.shared.console
    }

    /// Hands console input to the guest, waiting while it takes none.
    pub fn console_input(&self, bytes: &[u8]) {
        self.shared.console.feed(bytes, || self.shared.nudge());
    }

    /// As [`console_input`](Self::console_input), for a client that may leave: see
    /// [`Console::feed_unless`].
    pub fn console_input_unless(&self, bytes: &[u8], gone: &AtomicBool) {
        self.shared.console.feed_unless(bytes, gone, || self.shared.nudge());
    }

    /// Says that no console input will come any more.
    pub fn console_eof(&self) {
        self.shared.console.end_input(|| self.shared.nudge());
    }

    /// Stops the vCPU as soon as it can be, wherever the guest is: at once if it waits, else tens
    /// of microseconds. Waits while another thread holds the VM paused.
    ///
    /// # Errors
    /// [`Error::Ended`].
    pub fn pause(&self) -> Result<Paused<'_>, Error> {
        self.stop_vcpu(None, OtherGuard::Wait)
    }

    /// Asks the guest to quiesce, and stops the vCPU when it has answered or `patience` is over,
    /// whichever comes first; [`Paused::quiescent`] says which. A VM that is paused is not asked.
    ///
    /// # Errors
    /// [`Error::Ended`].
    pub fn quiesce(&self, patience: Duration) -> Result<Paused<'_>, Error> {
        self.stop_vcpu(Some(patience), OtherGuard::Wait)
    }

    fn stop_vcpu(&self, quiesce: Option<Duration>, other: OtherGuard) -> Result<Paused<'_>, Error> {
        let requested = Instant::now();
        let asked = quiesce.filter(|_| matches!(self.phase(), VmPhase::Running));
        let Some(patience) = asked else {
            if let Some(machine) = self.shared.take_waiting() {
                return Ok(Paused::new(self, machine, requested));
            }
            let _wanted = self.shared.want_pause();
            let machine = self.shared.wait_stopped(None, other)?.machine();
            return Ok(Paused::new(self, machine.ok_or_else(|| self.shared.busy())?, requested));
        };
        let wanted = self.shared.want_quiesce();
        self.shared.request_quiesce(patience);
        self.shared.nudge();
        fail_point!("vm.quiescing");
        let mut waited = self.shared.wait_stopped(Some(requested + patience), other)?;
        if let Waited::Runs = waited {
            let _wanted = self.shared.want_pause();
            waited = self.shared.wait_stopped(None, other)?;
        }
        drop(wanted);
        let machine = waited.machine().ok_or_else(|| self.shared.busy())?;
        let paused = Paused::new(self, machine, requested);
        let (requested, stopped) = paused.times();
        let took = stopped.saturating_duration_since(requested);
        self.shared.lock_history().quiesced(took, paused.quiescent());
        Ok(paused)
    }

    /// Asks the guest to give up memory that it does not use, in time for
    /// [`dont_care`](Self::dont_care). It runs on.
    pub fn ask_to_give_up(&self) {
        self.shared.ask_to_give_up();
    }

    /// Waits until the guest has answered [`ask_to_give_up`](Self::ask_to_give_up), at most
    /// `patience`. `None`: it has not.
    pub fn wait_gave_up(&self, patience: Duration) -> Option<GaveUp> {
        self.shared.wait_gave_up(Instant::now() + patience).map(GaveUp)
    }

    /// Pages that have lost their content: they matter again only when they change. Of a guest
    /// that runs, and that was not asked to quiesce since it has answered: while it is quiescent
    /// also those do not matter that the VMM writes to for it, and once it is not they do, as they
    /// are.
    #[must_use]
    pub fn lost_content(&self, since: GaveUp) -> PageSet {
        let pages = self.dont_care();
        if self.shared.quiesce_number() == since.0 { pages } else { PageSet::none(pages.limit()) }
    }

    /// The pages whose content does not matter now. While the guest runs this can change at any
    /// time.
    #[must_use]
    pub fn dont_care(&self) -> PageSet {
        self.ram().dont_care(self.ram().control_page())
    }

    /// Stops the guest for a move: if the program has quiesce hooks as [`quiesce`](Self::quiesce)
    /// does, else at once, wherever it is.
    ///
    /// # Errors
    /// [`Error::Ended`], or [`Error::Busy`] if another thread holds it.
    pub fn stop_for_move(&self, patience: Duration) -> Result<Paused<'_>, Error> {
        fail_point!("vm.stopping");
        if let VmPhase::Paused = self.phase() {
            return self.pause();
        }
        if self.ram().control_page().no_quiesce_hooks.load(SeqCst) == 0 {
            return self.quiesce(patience);
        }
        let paused = self.pause()?;
        let (requested, stopped) = paused.times();
        let took = stopped.saturating_duration_since(requested);
        self.shared.lock_history().quiesced(took, true);
        Ok(paused)
    }

    /// Says that the machine is about to be stopped for a capture, or is not after all: the vCPU's
    /// thread then does what it can of that whenever the guest stands.
    pub fn stop_is_near(&self, near: bool) {
        self.shared.stop_near.store(near, SeqCst);
        if near {
            self.shared.nudge();
        }
    }

    /// What of the guest's state is not going to change any more, as of the last time that it [gave
    /// up](Self::ask_to_give_up) memory.
    #[must_use]
    pub fn steady(&self) -> Option<Steady> {
        self.shared.steady()
    }

    /// Takes hold of a machine that is paused already, such as one just prepared.
    ///
    /// # Errors
    /// [`Error::Ended`], or [`Error::Busy`] if it runs or another thread holds it.
    pub fn hold(&self) -> Result<Paused<'_>, Error> {
        let requested = Instant::now();
        Ok(Paused::new(self, self.shared.take_hold()?, requested))
    }

    /// Makes the vCPU's thread [urgent](Urgent). Not for long while a guest runs that does not
    /// wait: nothing else would get this CPU.
    #[must_use]
    pub fn urgent_vcpu(&self, side: Side) -> Urgent {
        Urgent::other(self.shared.thread.load(SeqCst), side)
    }

    /// Begins an operation, which dropping what comes back ends.
    ///
    /// # Errors
    /// [`Error::Busy`]: there is one.
    pub fn begin(&self, what: Operation) -> Result<InProgress, Error> {
        InProgress::begin(&self.shared, what)
    }

    /// Calls the operation in progress off, and waits for what becomes of that.
    ///
    /// # Errors
    /// [`NotCancelled`]: it goes on, or is over.
    pub fn cancel(&self, slow: &mut Slow<'_>) -> Result<(), NotCancelled> {
        self.shared.cancel(slow)
    }

    /// A descriptor that is readable once the operation in progress is to be called off.
    #[must_use]
    pub fn cancel_fd(&self) -> i32 {
        self.shared.cancel.as_raw_fd()
    }

    /// The operation in progress cannot act on an operator's word: the other host answers.
    pub fn refuse_vouching(&self) {
        self.shared.refuse_vouching();
    }

    /// Whether it was ever resumed on an operator's word that it ran nowhere else.
    #[must_use]
    pub fn was_vouched_for(&self) -> bool {
        self.shared.was_vouched_for.load(SeqCst)
    }

    /// Takes note that it was.
    pub fn note_vouched_for(&self) {
        self.shared.was_vouched_for.store(true, SeqCst);
    }

    /// A descriptor that is readable once an operator [vouches](Self::vouch) for the VM.
    #[must_use]
    pub fn vouched_fd(&self) -> i32 {
        self.shared.vouched.as_raw_fd()
    }

    /// It moves there, for what is said of it from the commit on.
    pub fn set_destination(&self, to: String) {
        self.shared.set_destination(to);
    }

    /// Says that the machine, which is paused, is about to be resumed, so that its thread is awake
    /// when it is: to be woken takes longer than most of what is done between the two.
    pub fn rouse(&self) {
        self.shared.rouse();
    }

    /// Whether it runs, is paused, or how it ended.
    #[must_use]
    pub fn phase(&self) -> VmPhase {
        match self.shared.phase() {
            Phase::Running => VmPhase::Running,
            Phase::Paused { .. } => VmPhase::Paused,
            Phase::Ended(end) => VmPhase::Ended(end),
        }
    }

    /// Ends the machine as soon as the vCPU can be stopped. The guest is not asked.
    pub fn stop(&self, reason: StopReason) {
        self.shared.stop(End::Stopped(reason));
    }

    /// Ends the machine because the host let it down. The vCPU's thread may be held up by something
    /// that `let_go` ends: that is called when the guest does not run any more, or is just waiting
    /// for it. No instruction of the guest runs after that.
    pub fn fail(
        &self,
        error: impl std::error::Error + Send + Sync + 'static,
        let_go: impl FnOnce(),
    ) {
        self.shared.fail(Arc::new(End::Vmm(Arc::new(error))), let_go);
    }

    /// Whether somebody wants it to end.
    #[must_use]
    pub fn stop_wanted(&self) -> bool {
        self.shared.stopping.load(SeqCst)
    }

    /// Waits for the end.
    #[must_use]
    pub fn wait_end(&self) -> Arc<End> {
        self.shared.wait_end()
    }

    /// A descriptor that is readable once the machine has ended, for those who wait for other
    /// things too.
    #[must_use]
    pub fn end_fd(&self) -> i32 {
        self.shared.end_fd()
    }

    /// What the machine did so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats::of(&self.shared)
    }

    /// When the vCPU last entered the guest after a resume, taken right before `KVM_RUN`. Waits for
    /// it at most `patience`.
    #[must_use]
    pub fn entered(&self, patience: Duration) -> Option<Instant> {
        self.shared.wait_entered(patience)
    }

    /// Hands a packet (with its virtio-net header) to the guest that reached its old place. `false`
    /// when it had to be dropped.
    pub fn deliver_late(&self, frame: Vec<u8>) -> bool {
        let taken = self.shared.late.as_ref().is_some_and(|late| late.push(frame));
        if taken {
            self.shared.nudge();
        }
        taken
    }

    /// The address the network knows the guest by, if one was given.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.shared.identity.net.as_ref()?.ip.map(|ip| ip.address)
    }
}

/// What a machine is doing; see [`Vm::phase`].
#[derive(Clone, Debug)]
pub enum VmPhase {
    /// The vCPU runs the guest or waits for it.
    Running,
    /// It is stopped and can be resumed.
    Paused,
    /// It will not run again.
    Ended(Arc<End>),
}
