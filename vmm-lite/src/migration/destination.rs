//! Takes a VM in: drives [`migrate::destination::Destination`], one connection a thread.

use super::{
    Error,
    connection::{Connection, Incoming, LinkError, Transport},
    draw,
    listener::Place,
};
use crate::{
    control::{Claim, RuntimeDir},
    devices::console::Console,
    kvm::cpu::Features,
    memory::GuestRam,
    vm::{Identity, Resume, ResumeReason, Urgent, Vm, VmState},
};
use migrate::{
    MoveId, Peer, ReceiverId,
    destination::{Action, Destination, Event, Ledger},
    offer::{Capabilities, Offer, Refusal, judge},
    wire::{Message, Outcome, PageFrame, Started},
};
use std::{
    net::{Shutdown, TcpStream},
    os::fd::OwnedFd,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc::Sender},
    time::{Duration, Instant},
};
use vmm_lite_interface::INTERFACE_VERSION;

/// How long a source may be silent before the commit.
const SILENCE: Duration = Duration::from_secs(10);
/// How long the vCPU may take to enter the guest before nothing is said about when it did.
const ENTRY: Duration = Duration::from_secs(1);

/// What a VM gets that comes in.
#[derive(Debug)]
pub struct Offering {
    /// Name here, if not its own.
    pub name: Option<String>,
    /// TAP device.
    pub tap: Option<String>,
    /// Most memory, in bytes.
    pub memory_max: u64,
    /// Where its console output goes.
    pub output: Option<OwnedFd>,
}

/// A VM that has arrived and runs.
#[derive(Debug)]
pub struct Arrived {
    /// The VM.
    pub vm: Vm,
    /// Its name.
    pub claim: Claim,
}

/// Everything that the connections of one receiving process share.
#[derive(Debug)]
pub struct Receiver {
    me: ReceiverId,
    offering: Offering,
    arrived: Sender<Arrived>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    ledger: Ledger,
    /// The move under way, and how to end its connection.
    current: Option<(MoveId, Arc<TcpStream>)>,
    /// Whether the process has become a VM.
    taken: bool,
}

impl Receiver {
    /// One that sends what arrives to `arrived`.
    ///
    /// # Errors
    /// [`Error::Random`].
    pub fn new(offering: Offering, arrived: Sender<Arrived>) -> Result<Self, Error> {
        let me = draw()?;
        let state = State { ledger: Ledger::new(me), current: None, taken: false };
        Ok(Self { me, offering, arrived, state: Mutex::new(state), changed: Condvar::new() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the process has become a VM.
    #[must_use]
    pub fn taken(&self) -> bool {
        self.state().taken
    }

    /// Serves a connection to its end. It gives up `place` among the strangers when it has said who it is and what it wants.
    ///
    /// # Errors
    /// What went wrong, for the log: other connections are not concerned.
    pub fn serve(
        self: &Arc<Self>,
        stream: Arc<TcpStream>,
        transport: &Transport,
        place: &mut Place,
    ) -> Result<(), Error> {
        let mut connection = Connection::accept(stream, transport, SILENCE)?;
        let first = match connection.receive(0) {
            Ok(Incoming::Message(message)) => message,
            Ok(Incoming::Pages(_)) => return Err(Error::Nonsense),
            Err(e) => {
                if let LinkError::Encrypted = e {
                    let why = "this destination takes plaintext only: use --plaintext on both sides, or leave it out here";
                    connection.send(&Message::Abort(why.into()))?;
                }
                return Err(e.into());
            }
        };
        if !place.known() {
            connection.send(&Message::Refuse(Refusal::Busy))?;
            return Ok(());
        }
        connection.known();
        match first {
            Message::Query(id, receiver) => {
                let outcome = self.outcome(&id, &receiver, &connection.peer());
                connection.send(&Message::Outcome(outcome))?;
                Ok(())
            }
            Message::Hello(id) => self.take_in(connection, id),
            _ => {
                connection.send(&Message::Abort(Error::Nonsense.to_string()))?;
                Err(Error::Nonsense)
            }
        }
    }

    /// What became of a move. One that has not been committed is ended first. Whoever did not begin it learns nothing, and ends nothing.
    fn outcome(&self, id: &MoveId, receiver: &ReceiverId, peer: &Peer) -> Outcome {
        let mut state = self.state();
        if !state.ledger.may_ask(id, peer) {
            tracing::warn!(
                "a host asked about a move that another has begun, and was told nothing"
            );
            return Outcome::Unknown;
        }
        while state.ledger.outcome(id, receiver) == Outcome::Never
            && let Some((current, stream)) = &state.current
            && current == id
        {
            // Its thread sees the end of its connection, unless the commit has come: either way it says so.
            let _ = stream.shutdown(Shutdown::Both);
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.ledger.outcome(id, receiver)
    }

    fn take_in(self: &Arc<Self>, mut connection: Connection, id: MoveId) -> Result<(), Error> {
        {
            let mut state = self.state();
            if state.taken || state.current.is_some() {
                drop(state);
                connection.send(&Message::Refuse(Refusal::Busy))?;
                return Ok(());
            }
            if !state.ledger.begin(id, connection.peer()) {
                drop(state);
                connection.send(&Message::Abort(Error::Replayed.to_string()))?;
                return Err(Error::Replayed);
            }
            state.current = Some((id, connection.stream()));
        }
        let mut attempt = Attempt::new(self, connection);
        let result = attempt.run(id);
        let prepared = attempt.prepared.take();
        drop(attempt);
        // A VM that did not get to run is gone, with its name and its TAP, before anybody can try again.
        drop(prepared);
        self.state().current = None;
        self.changed.notify_all();
        result
    }
}

/// A VM made ready.
struct Prepared {
    vm: Vm,
    claim: Option<Claim>,
    /// From the state's arrival to the first entry.
    urgent: Option<Urgent>,
}

/// One connection on which a move is made.
struct Attempt<'r> {
    receiver: &'r Receiver,
    connection: Connection,
    machine: Destination,
    epoch: Instant,
    prepared: Option<Prepared>,
    pages: usize,
    /// When the message being handled came.
    came: Instant,
    apply_ns: u64,
    /// Why it came to nothing.
    discarded: Option<String>,
}

impl<'r> Attempt<'r> {
    fn new(receiver: &'r Receiver, connection: Connection) -> Self {
        let epoch = Instant::now();
        Self {
            receiver,
            connection,
            machine: Destination::new(receiver.me, SILENCE, Duration::ZERO),
            epoch,
            prepared: None,
            pages: 0,
            came: epoch,
            apply_ns: 0,
            discarded: None,
        }
    }

    fn run(&mut self, id: MoveId) -> Result<(), Error> {
        self.event(Event::Message(Message::Hello(id)));
        while !self.machine.ended() {
            let event = self.wait();
            self.event(event);
        }
        if let Some(why) = &self.discarded {
            eprintln!("vmm-lite: a VM did not arrive: {why}; waiting for the next");
        }
        Ok(())
    }

    fn wait(&mut self) -> Event {
        let now = self.epoch.elapsed();
        let patience = self.machine.deadline().map_or(SILENCE, |at| at.saturating_sub(now));
        match self.connection.wait(patience) {
            Ok(true) => {}
            Ok(false) => return Event::Tick,
            Err(e) => return lost(&e),
        }
        self.came = Instant::now();
        let receives = self.machine.receives();
        match self.connection.receive(self.pages) {
            Ok(Incoming::Pages(frame)) => match (&self.prepared, receives) {
                (Some(prepared), true) => match write(prepared.vm.ram(), &frame) {
                    Ok(()) => Event::Pages,
                    Err(e) => Event::LinkLost(crate::cli::with_causes(&e)),
                },
                _ => Event::Pages,
            },
            Ok(Incoming::Message(message)) => {
                if let (Message::Zero(runs), Some(prepared), true) =
                    (&message, &self.prepared, receives)
                    && let Err(e) = zero(prepared.vm.ram(), runs)
                {
                    return Event::LinkLost(crate::cli::with_causes(&e));
                }
                Event::Message(message)
            }
            Err(e) => lost(&e),
        }
    }

    fn event(&mut self, event: Event) {
        let mut next = Some(event);
        while let Some(event) = next.take() {
            for action in self.machine.handle(event, self.epoch.elapsed()) {
                // An action's own event comes after the actions it came with, of which there are none for those that have one.
                if let Some(event) = self.act(action) {
                    next = Some(event);
                }
            }
        }
    }

    fn act(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::Send(message) => self.connection.send(&message).err().map(|e| lost(&e)),
            Action::Prepare(offer) => Some(Event::Prepared(self.prepare(&offer))),
            Action::Apply(state) => Some(Event::Applied(self.apply(&state))),
            Action::Run => self.start(),
            Action::Deliver(frame) => {
                if let Some(prepared) = &self.prepared
                    && !prepared.vm.deliver_late(frame)
                {
                    tracing::debug!("a late packet found no room");
                }
                None
            }
            Action::Discard(why) => {
                self.discarded = Some(why);
                None
            }
            Action::End => None,
        }
    }

    fn prepare(&mut self, offer: &Offer) -> Result<(), Refusal> {
        let cannot = |e: &dyn std::error::Error| Refusal::Prepare(crate::cli::with_causes(e));
        let offering = &self.receiver.offering;
        let (mut identity, features): (Identity, Features) = postcard::from_bytes(&offer.identity)
            .map_err(|_| Refusal::Prepare("the offer says nothing of who the VM is".into()))?;
        if identity.memory_size != offer.memory_size || identity.net.is_some() != offer.network {
            return Err(Refusal::Prepare("the offer contradicts itself".into()));
        }
        let here = Vm::features().map_err(|e| cannot(&e))?;
        let capabilities = Capabilities {
            memory_max: offering.memory_max,
            interface_versions: vec![INTERFACE_VERSION],
            network: offering.tap.is_some(),
            missing_features: features.missing_from(&here),
        };
        judge(offer, &capabilities)?;
        if let Some(name) = &offering.name {
            identity.name.clone_from(name);
        }
        let dir = RuntimeDir::open().map_err(|e| cannot(&e))?;
        let claim = dir.claim(&identity.name).map_err(|e| cannot(&e))?;
        let output = offering.output.as_ref().map(OwnedFd::try_clone).transpose();
        let console = Console::new(output.map_err(|e| cannot(&e))?);
        let vm = Vm::prepare(identity, offering.tap.as_deref(), console).map_err(|e| cannot(&e))?;
        vm.hold().and_then(|mut held| held.warm_up()).map_err(|e| cannot(&e))?;
        self.pages = vm.ram().pages();
        self.prepared = Some(Prepared { vm, claim: Some(claim), urgent: None });
        Ok(())
    }

    fn apply(&mut self, state: &[u8]) -> Result<(), String> {
        let prepared = self.prepared.as_mut().ok_or("no VM was prepared")?;
        prepared.urgent = Some(prepared.vm.urgent());
        let state: VmState = match postcard::take_from_bytes(state) {
            Ok((state, [])) => state,
            _ => return Err("the state makes no sense".into()),
        };
        // The guest's clock went on from the capture: that long before the state came, as far as this host can know.
        let mut held = prepared.vm.hold().map_err(|e| crate::cli::with_causes(&e))?;
        held.apply(&state, self.came.elapsed()).map_err(|e| crate::cli::with_causes(&e))?;
        self.apply_ns = self.came.elapsed().as_nanos() as u64;
        Ok(())
    }

    /// The commit has come: the VM runs here, and its process is its.
    fn start(&mut self) -> Option<Event> {
        let id = self.machine.id()?;
        let prepared = self.prepared.as_mut()?;
        {
            let mut state = self.receiver.state();
            state.ledger.ran(id);
            state.taken = true;
        }
        self.receiver.changed.notify_all();
        let away = self.came.elapsed() + Duration::from_nanos(self.apply_ns);
        let resumed = prepared
            .vm
            .hold()
            .and_then(|held| held.resume(Resume { reason: ResumeReason::Migrated, away }));
        if let Err(e) = resumed {
            // The source may not run it and this host cannot: that is for people to know.
            eprintln!("vmm-lite: the VM arrived and cannot run: {}", crate::cli::with_causes(&e));
        }
        let entered = prepared.vm.entered(ENTRY);
        prepared.urgent = None;
        if let Err(e) = prepared.vm.announce() {
            tracing::warn!("the network was not told that the VM is here: {e}");
        }
        let now = Instant::now();
        let entered = entered.unwrap_or(now);
        let started = Started {
            apply_ns: self.apply_ns,
            run_ns: entered.saturating_duration_since(self.came).as_nanos() as u64,
            told_ns: now.saturating_duration_since(entered).as_nanos() as u64,
        };
        if let Some(claim) = prepared.claim.take() {
            // Whoever waits for it waits for as long as the process lives.
            let _ = self.receiver.arrived.send(Arrived { vm: prepared.vm.clone(), claim });
        }
        Some(Event::Runs(started))
    }
}

fn write(ram: &GuestRam, frame: &PageFrame<'_>) -> Result<(), crate::memory::Error> {
    frame.iter().try_for_each(|(number, page)| ram.write_page(number, page))
}

fn zero(ram: &GuestRam, runs: &[(u64, u64)]) -> Result<(), crate::memory::Error> {
    for &(first, count) in runs {
        // The decoder has checked that the run lies inside the memory.
        (first..first + count).try_for_each(|number| ram.zero_page(number as usize))?;
    }
    Ok(())
}

fn lost(e: &LinkError) -> Event {
    Event::LinkLost(crate::cli::with_causes(e))
}
