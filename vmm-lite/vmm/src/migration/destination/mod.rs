//! Receives a VM: drives [`migrate::destination::Destination`], one thread for each move.
//!
//! - `attempt`: carries out the state machine's actions
//! - `prepared`: the VM that was made, and its changes; `preparing`: keeps the source informed
//!   while it is made
//! - `made`: a VM for one that is offered
//! - `names`: the VM's name on this host
//! - `error`: why this host cannot take a part of an arriving VM
//! - `missing`: pages that block their reader until they arrive
//! - `settling`: how the guest returns to full speed
//! - `warm`: KVM's own tables filled in before the guest runs
//! - `rejoin`: reconnection of a source that lost the link
//! - [`stage`]: what the process still needs once a VM is here
//! - `waiting`: messages about a VM that waits for its source

mod attempt;
mod error;
pub(crate) mod made;
mod missing;
mod names;
mod prepared;
mod preparing;
mod rejoin;
mod settling;
pub mod stage;
mod waiting;
mod warm;

use super::{
    Error,
    connection::{Connection, Incoming, LinkError, Transport},
    draw,
    listener::{Service, Session},
    timeout,
};
use crate::{
    devices::throttle::Rates,
    host::{
        confine::Thread,
        patient::give_way,
        watchdog::{self, Doing},
    },
    kvm::FaultCost,
    vm::{Resources, Vm},
};
pub use names::{NameError, Names};

use attempt::Attempt;
use migrate::{
    MoveId, Peer, ReceiverId,
    destination::Ledger,
    offer::Refusal,
    wire::{Message, Outcome},
};
use rejoin::Rejoin;
use stage::{Stage, Stages, heard};
use std::{
    net::TcpStream,
    os::fd::OwnedFd,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc::Sender},
    time::Duration,
};

/// How long a source may be silent before the commit, its first message included.
const SILENCE: Duration = Duration::from_secs(5);

/// What a received VM gets from this process.
#[derive(Debug)]
pub struct Offering {
    /// The names of VMs on this host.
    pub names: Arc<dyn Names>,
    /// KVM, and the TAP device.
    pub resources: Resources,
    /// Upper limit of its memory, in bytes.
    pub memory_max: u64,
    /// Where its console output is written.
    pub output: Option<OwnedFd>,
    /// The cost of a fault when KVM's second-level tables lack a page on this host, if known.
    pub fault_cost: Option<FaultCost>,
    /// How long a VM waits for a source that has memory of it, before it counts as lost; `None`:
    /// without limit.
    pub lost_after: Option<Duration>,
    /// Whether a guest may arrive that sends packets from addresses which are not its own.
    pub allow_spoofing: bool,
    /// The rates of its network and its console on this host.
    pub rates: Rates,
}

/// State that all connections of a receiving process share.
#[derive(Debug)]
pub struct Receiver {
    me: ReceiverId,
    /// The resources for a VM, until there is one: then only another would need them.
    offering: Mutex<Option<Arc<Offering>>>,
    lost_after: Option<Duration>,
    arrived: Sender<Vm>,
    state: Mutex<State>,
    changed: Condvar,
    stages: Stages,
}

#[derive(Debug)]
struct State {
    ledger: Ledger,
    /// The move in progress, and how to reach its thread.
    current: Option<(MoveId, Arc<Rejoin>)>,
    /// Whether the process has become a VM.
    taken: bool,
}

impl Receiver {
    /// A receiver that passes the VM that arrives to `arrived`.
    ///
    /// # Errors
    /// [`Error::Random`], [`Error::Event`].
    pub fn new(offering: Offering, arrived: Sender<Vm>) -> Result<Self, Error> {
        let me = draw()?;
        let state = State { ledger: Ledger::new(me), current: None, taken: false };
        let lost_after = offering.lost_after;
        let offering = Mutex::new(Some(Arc::new(offering)));
        let (state, changed) = (Mutex::new(state), Condvar::new());
        Ok(Self { me, offering, lost_after, arrived, state, changed, stages: Stages::new()? })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn offering(&self) -> MutexGuard<'_, Option<Arc<Offering>>> {
        self.offering.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For a VM that has ended: waits until its source knows the outcome, at most `timeout`. A
    /// source that does not know it would ask forever.
    pub fn wait_over(&self, most: Duration) {
        // The move's thread tells it, if possible; that thread has its own timeouts.
        let waits = |state: &mut State| state.current.is_some();
        drop(self.changed.wait_while(self.state(), waits));
        self.stages.wait_over(timeout(most));
    }

    /// Answers a question about the outcome of a move. A move without commit is ended first. Only
    /// the host that began the move gets an answer and can end it.
    fn outcome(&self, id: &MoveId, receiver: &ReceiverId, peer: &Peer) -> Outcome {
        let mut state = self.state();
        if !state.ledger.may_ask(id, peer) {
            tracing::warn!("a host asked about a move that another has begun, and got no answer");
            return Outcome::Unknown;
        }
        while state.ledger.outcome(id, receiver) == Outcome::Never
            && let Some((current, thread)) = &state.current
            && current == id
        {
            // Its thread sees the end of its connection, unless the commit has arrived: in both
            // cases it reports that.
            thread.shut_down();
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.ledger.outcome(id, receiver)
    }

    /// The thread of a move: it answers while its VM has missing pages.
    fn thread_of(&self, id: &MoveId) -> Option<Arc<Rejoin>> {
        let state = self.state();
        let (_, thread) = state.current.as_ref().filter(|(current, _)| current == id)?;
        Some(Arc::clone(thread))
    }

    fn take_in(self: &Arc<Self>, mut connection: Connection, id: MoveId) -> Result<(), Error> {
        let rejoin = Arc::new(Rejoin::new(connection.stream())?);
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
            state.current = Some((id, Arc::clone(&rejoin)));
        }
        fail_point!("destination.greeted");
        let _attends = watchdog::attend(Thread::Receive.name());
        let _owes = watchdog::owe(Doing::Receive);
        give_way();
        let mut attempt = Attempt::new(self, connection, rejoin);
        attempt.run(id);
        if attempt.farewell() {
            self.stages.enter(Stage::Over);
        }
        // A VM that did not start is gone, with its name and its TAP, before the source can try
        // again.
        let (prepared, why) = attempt.discard();
        if why.is_some() {
            fail_point!("destination.discarded");
        }
        drop(prepared);
        self.state().current = None;
        self.changed.notify_all();
        // Printed only once it is true.
        if let Some(why) = why {
            eprintln!("vmm-lite: a VM did not arrive: {why}; waiting for the next");
        }
        Ok(())
    }
}

impl Receiver {
    /// What a VM gets that arrives in another way than by this receiver's protocol; `None`: it has
    /// one, or receives one. [`take_back`](Self::take_back) or [`became`](Self::became) follow.
    pub(crate) fn lend(&self) -> Option<Arc<Offering>> {
        let offering = self.offering().clone()?;
        let mut state = self.state();
        if state.taken || state.current.is_some() {
            return None;
        }
        state.taken = true;
        Some(offering)
    }

    /// That VM did not arrive.
    pub(crate) fn take_back(&self) {
        self.state().taken = false;
    }

    /// That VM runs here.
    pub(crate) fn became(&self, vm: Vm) {
        drop(self.offering().take());
        // The receiving thread exists as long as the process, so this does not fail.
        let _ = self.arrived.send(vm);
    }

    /// No other host has anything to say about it any more.
    pub(crate) fn ends_receiving(&self) {
        self.stages.enter(Stage::Over);
    }

    /// Serves a connection to its end.
    ///
    /// # Errors
    /// As of [`Service::serve`].
    pub(crate) fn converse(
        self: &Arc<Self>,
        mut connection: Connection,
        session: &mut Session,
    ) -> Result<(), Error> {
        let first = match connection.receive(0) {
            Ok(Incoming::Message(message)) => message,
            Ok(Incoming::Pages(_)) => return Err(Error::Nonsense),
            Err(e) => {
                if let LinkError::Encrypted = e {
                    let why = "this destination takes plaintext only: use --plaintext on both \
                        sides, or leave it out here";
                    connection.send(&Message::Abort(why.into()))?;
                }
                return Err(e.into());
            }
        };
        if !session.known() {
            connection.send(&Message::Refuse(Refusal::Busy))?;
            return Ok(());
        }
        connection.known();
        match first {
            Message::Query(id, receiver) => {
                let outcome = self.outcome(&id, &receiver, &connection.peer());
                if outcome == Outcome::Ran
                    && let Some(thread) = self.thread_of(&id)
                {
                    connection = match thread.join(connection) {
                        Ok(()) => return Ok(()),
                        Err(connection) => connection,
                    };
                }
                connection.send(&Message::Outcome(id, outcome))?;
                if outcome == Outcome::Ran && heard(&mut connection) {
                    self.stages.enter(Stage::Over);
                }
                Ok(())
            }
            Message::Hello(id) => self.take_in(connection, id),
            _ => {
                connection.send(&Message::Abort(Error::Nonsense.to_string()))?;
                Err(Error::Nonsense)
            }
        }
    }
}

impl Service for Receiver {
    fn stages(&self) -> &Stages {
        &self.stages
    }

    fn taken(&self) -> bool {
        self.state().taken
    }

    fn serve(
        self: &Arc<Self>,
        stream: Arc<TcpStream>,
        transport: &Transport,
        session: &mut Session,
    ) -> Result<(), Error> {
        self.converse(Connection::accept(stream, transport, SILENCE)?, session)
    }
}
